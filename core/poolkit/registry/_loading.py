"""Step 3: import what the enabled plugins provide and check it against the contract. One try per entry point."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel

from poolkit.config import Named
from poolkit.contract import API_OLDEST, API_VERSION, PoolingTask, Removed, Renamed
from poolkit.errors import (
    ConfigError,
    PluginError,
    PluginIncompatibleError,
    PluginInvalidError,
    PoolkitError,
    StartupError,
    UnknownTaskError,
)
from poolkit.registry._checking import check_entry_name, check_task
from poolkit.registry._discovery import HOOKS, TASKS, EntryPoint, Plugin
from poolkit.registry._entries import check_names, check_requirement, warn_of_taken_names
from poolkit.registry._importing import import_object
from poolkit.registry._selection import Enabled, Selection
from poolkit.registry._settings import read_settings, setting_names
from poolkit.registry._startup import HookModule, load_hook_module
from poolkit.registry._together import raise_together

__all__ = ["Loaded", "LoadedTask", "Quarantined", "enable_server", "load"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """What an entry point of an enabled plugin names."""

    target: PoolingTask | Renamed | Removed
    entry_point: EntryPoint
    enabled: Enabled

    @property
    def name(self) -> str:
        """The name of the entry point: the task's own name, or an older or another name for it."""
        return self.entry_point.name

    @property
    def plugin(self) -> Plugin:
        """The plugin that provides it."""
        return self.enabled.plugin


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A task or hook module that only `"*"` enabled and that could not be loaded."""

    entry_point: EntryPoint
    plugin: Plugin
    error: PluginError


@dataclass(frozen=True, slots=True)
class Loaded:
    """The selection, imported.

    Attributes:
        hooks: the hook modules, in the order in which their plugins were enabled.
    """

    selection: Selection
    tasks: tuple[LoadedTask, ...]
    hooks: tuple[HookModule, ...]
    quarantined: tuple[Quarantined, ...]

    def task_names(self) -> list[str]:
        """Return the names of the tasks themselves, without other and former names, in alphabetical order."""
        return sorted({task.target.name for task in self.tasks if isinstance(task.target, PoolingTask)})

    def providers(self, name: str) -> list[LoadedTask]:
        """Return who provides a name: poolkit alone where it is built in; a task before another's former name."""
        found = [task for task in self.tasks if task.name == name]
        tasks = [task for task in found if isinstance(task.target, PoolingTask)] or found
        return [task for task in tasks if task.plugin.is_builtin] or tasks

    def find(self, task: PoolingTask) -> LoadedTask:
        """Return where a descriptor comes from.

        Raises:
            UnknownTaskError: it is none of the enabled tasks'.
        """
        for candidate in self.tasks:
            if candidate.target == task:
                return candidate
        raise UnknownTaskError(f"task {task.name!r} is not one of the enabled tasks' descriptors.", task=task.name)

    def read_settings(self, plugin: Plugin, model: type[BaseModel]) -> BaseModel:
        """Return a task's or hook module's part of its plugin's table.

        Raises:
            PluginConfigError: a key is unknown, or a value is wrong.
            StartupError: several of these at once.
        """
        table = self.selection.settings.get(plugin.name, {})
        models = [module.settings for module in self.hooks if module.plugin == plugin]
        tasks = [task.target for task in self.tasks if task.plugin == plugin]
        known = setting_names(models + [task.settings for task in tasks if isinstance(task, PoolingTask)])
        if any(failure.plugin == plugin for failure in self.quarantined):
            known |= table.keys()  # they may be those of what could not be loaded
        return read_settings(plugin, model, table, known=known)


def load(selection: Selection, *, reads_settings: bool = True) -> Loaded:
    """Import and check the tasks and hook modules of every enabled plugin.

    Args:
        selection: what is enabled.
        reads_settings: check the hook modules' settings as well; those of a task are read when it is bound.

    Raises:
        PluginError: a plugin that was named cannot be loaded.
        PluginConfigError: the settings of a hook module are wrong.
        ConfigError: a name in `disable` or in the settings is that of no plugin.
        StartupError: several of these at once.
    """
    tasks = []
    hooks = []
    quarantined = []
    errors = list(selection.errors)
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.entry_points:
            is_task = entry_point.group == TASKS
            if entry_point.group not in (TASKS, HOOKS) or (is_task and entry_point.name in selection.disabled_tasks):
                continue
            try:
                check_requirement(enabled.plugin, selection.installed.core)
                if is_task:
                    target = _load_target(entry_point, enabled, selection.installed.core)
                    tasks.append(LoadedTask(target, entry_point, enabled))
                else:
                    hooks.append(load_hook_module(entry_point, enabled))
            except PluginError as error:
                if enabled.must_load:
                    errors.append(error)
                else:
                    quarantined.append(Quarantined(entry_point, enabled.plugin, error))
    loaded = Loaded(selection, tuple(tasks), tuple(hooks), tuple(quarantined))
    errors += check_names(selection)
    errors += _settings_errors(loaded) if reads_settings else ()
    raise_together(list({str(error): error for error in errors}.values()))
    for failure in quarantined:
        logger.warning(
            "%s %r of %s is not available: %s",
            "Task" if failure.entry_point.group == TASKS else "Hook module",
            failure.entry_point.name,
            failure.plugin,
            failure.error,
            exc_info=failure.error.__cause__,
        )
    _warn_of_overrides(tasks)
    warn_of_taken_names(selection)
    return loaded


def enable_server(loaded: Loaded, field: str) -> Loaded:
    """Return the plugins with one that serves a field of `PoolerConfig`: enabled already, or a part of poolkit.

    Raises:
        ConfigError: there is none, or it is disabled.
        PluginError: its settings are wrong.
        StartupError: several of them are.
    """
    if any(field in module.serves for module in loaded.hooks):
        return loaded
    selection = loaded.selection
    for plugin in selection.installed.plugins:
        if not (plugin.is_part_of_poolkit and plugin.in_group(HOOKS)):
            continue
        enabled = Enabled(plugin, Named(plugin.name, f"pooler_config.{field}"))
        hooks = load(replace(selection, enabled=(enabled,), errors=()), reads_settings=False).hooks
        if any(field in module.serves for module in hooks):
            if plugin.name in selection.disabled_plugins:
                raise ConfigError(
                    f"pooler_config.{field} needs the plugin {plugin.name}, which is disabled "
                    f"{selection.disabled_plugins[plugin.name].where}. Leave out one or the other."
                )
            selection = replace(selection, enabled=(*selection.enabled, enabled))
            loaded = replace(loaded, selection=selection, hooks=(*loaded.hooks, *hooks))
            raise_together(_settings_errors(loaded))
            return loaded
    raise ConfigError(f"pooler_config.{field} needs a plugin that serves it, and no enabled one does.")


def _settings_errors(loaded: Loaded) -> list[PoolkitError]:
    errors: list[PoolkitError] = []
    for module in loaded.hooks:
        try:
            loaded.read_settings(module.plugin, module.settings)
        except StartupError as error:
            errors += error.errors
        except PluginError as error:
            errors.append(error)
    return errors


def _load_target(entry_point: EntryPoint, enabled: Enabled, core: Plugin) -> PoolingTask | Renamed | Removed:
    plugin = enabled.plugin
    check_entry_name(entry_point, plugin)
    target = import_object(entry_point.value, enabled, entry_point=str(entry_point))
    if isinstance(target, Renamed | Removed):
        return target
    if not isinstance(target, PoolingTask):
        raise PluginInvalidError(
            f"{plugin}: entry point {entry_point.name!r} points to an object of type {type(target).__name__}, "
            "not to a PoolingTask.",
            plugin=plugin.name,
        )
    _check_api(target, plugin, core)
    check_task(target, entry_point, plugin)
    return target


def _check_api(task: PoolingTask, plugin: Plugin, core: Plugin) -> None:
    """Come before the other checks: a task of another version may well look different."""
    if type(task.api) is not int:
        raise PluginInvalidError(
            f"{plugin}: task {task.name!r} has api={task.api!r}. Give the number of the plugin API "
            f"it was written for, now {API_VERSION}.",
            plugin=plugin.name,
        )
    if API_OLDEST <= task.api <= API_VERSION:
        return
    supported = str(API_VERSION) if API_OLDEST == API_VERSION else f"{API_OLDEST} to {API_VERSION}"
    outdated = core if task.api > API_VERSION else plugin
    raise PluginIncompatibleError(
        f"{plugin} needs plugin API {task.api}; {core} supports {supported}. Upgrade {outdated.name}.",
        plugin=plugin.name,
    )


def _warn_of_overrides(tasks: Sequence[LoadedTask]) -> None:
    builtin = {task.name for task in tasks if task.plugin.is_builtin}
    for task in tasks:
        if task.name in builtin and not task.plugin.is_builtin:
            logger.warning(
                'Task %r of %s does not replace the built-in one. Choose it with  task = "%s:%s".',
                task.name,
                task.plugin,
                task.plugin.name,
                task.name,
            )
