"""Step 3: import the tasks and hook modules of the enabled plugins and check them. One try per entry point."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from types import ModuleType

from pydantic import BaseModel, ValidationError

from poolkit.config import Reference
from poolkit.contract import PoolingTask, Removed, Renamed
from poolkit.errors import ConfigError, PluginConfigError, PluginError, PoolkitError, UnknownTaskError, did_you_mean
from poolkit.registry.discover import GROUPS, HOOKS, TASKS, EntryPoint, Plugin
from poolkit.registry.entries import Failure, load_entry, name_problem, warn_of_taken_names
from poolkit.registry.hooks import HookModule
from poolkit.registry.importing import collected, raise_grouped
from poolkit.registry.select import Enabled, Selection
from poolkit.validation import field_errors

__all__ = ["Loaded", "LoadedTask", "enable_server", "load", "try_all"]

IMPORTED = (TASKS, HOOKS)
"""The groups whose entry points are imported at start-up; the others when they are asked for."""


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """The task that an entry point of an enabled plugin names."""

    target: PoolingTask | Renamed | Removed
    entry_point: EntryPoint
    enabled: Enabled

    @property
    def name(self) -> str:
        """The name of the entry point: the task's own name, or a former or another name for it."""
        return self.entry_point.name

    @property
    def plugin(self) -> Plugin:
        """The plugin that provides it."""
        return self.enabled.plugin


@dataclass(frozen=True, slots=True)
class Loaded:
    """The selection, imported.

    Attributes:
        tasks: the tasks of the enabled plugins, poolkit's first.
        hooks: their hook modules, in the order in which the plugins were enabled.
        quarantined: the failures of plugins that only `"*"` enabled; those of open tables follow as these are read.
    """

    selection: Selection
    tasks: tuple[LoadedTask, ...]
    hooks: tuple[HookModule, ...]
    quarantined: list[Failure]

    def pooling_tasks(self) -> list[tuple[LoadedTask, PoolingTask]]:
        """Return the tasks with their descriptors, without former names."""
        return [(found, found.target) for found in self.tasks if isinstance(found.target, PoolingTask)]

    def task_names(self) -> list[str]:
        """Return the names of the tasks themselves, without other and former names, in alphabetical order."""
        return sorted({task.name for _, task in self.pooling_tasks()})

    def providers(self, name: str) -> list[LoadedTask]:
        """Return the tasks of a name: poolkit's alone where it is built in; a task before another's former name."""
        found = [task for task in self.tasks if task.name == name]
        tasks = [task for task in found if isinstance(task.target, PoolingTask)] or found
        return [task for task in tasks if task.plugin.is_builtin] or tasks

    def find(self, task: PoolingTask) -> LoadedTask:
        """Return where a descriptor comes from.

        Raises:
            UnknownTaskError: it is none of the enabled tasks'.
        """
        for found, target in self.pooling_tasks():
            if task in (target, *(replace(target, output=output) for output in target.or_outputs)):
                return found
        raise UnknownTaskError(f"task {task.name!r} is not one of the enabled tasks' descriptors.", task=task.name)

    def read_settings(self, plugin: Plugin, model: type[BaseModel]) -> BaseModel:
        """Return a task's or hook module's part of its plugin's table.

        Raises:
            PluginConfigError: a key is unknown, or a value is wrong.
            StartupError: several of these at once.
        """
        table = self.selection.settings.get(plugin.name, {})
        models = [module.settings for module in self.hooks if module.plugin == plugin]
        models += [task.settings for found, task in self.pooling_tasks() if found.plugin == plugin]
        known = sorted({name for model in models for name in _setting_names(model)})
        problems = [
            f"{name}: no such setting.{did_you_mean(name, known)} Settings: {', '.join(known) or 'none'}."
            for name in table
            if name not in known
        ]
        if any(failure.plugin == plugin for failure in self.quarantined):
            problems = []  # they may be settings of what could not be loaded
        values = {name: value for name, value in table.items() if name in _setting_names(model)}
        settings: BaseModel | None = None
        try:
            settings = model.model_validate(values)
        except ValidationError as error:
            problems += [f"{field_error}." for field_error in field_errors(error, values, model)]
        raise_grouped(
            [PluginConfigError(f"[plugins.{plugin.name}] {problem}", plugin=plugin.name) for problem in problems]
        )
        assert settings is not None  # else there was a problem
        return settings

    def settings_errors(self) -> list[PoolkitError]:
        """Return what is wrong with the settings of the hook modules; those of a task are read when it is bound."""
        errors: list[PoolkitError] = []
        for module in self.hooks:
            with collected(errors):
                self.read_settings(module.plugin, module.settings)
        return errors


def load(selection: Selection, *, reads_settings: bool = True) -> Loaded:
    """Import and check the tasks and hook modules of every enabled plugin.

    Args:
        selection: the enabled plugins.
        reads_settings: check the hook modules' settings as well.

    Raises:
        PluginError: a plugin that was named cannot be loaded.
        PluginConfigError: the settings of a hook module are wrong.
        ConfigError: a name in `disable` or in the settings is that of no plugin.
        StartupError: several of these at once.
    """
    tasks: list[LoadedTask] = []
    hooks: list[HookModule] = []
    entries, failures = _load_entries(selection, IMPORTED)
    for entry_point, enabled, entry in entries:
        if isinstance(entry, PoolingTask | Renamed | Removed):
            tasks.append(LoadedTask(entry, entry_point, enabled))
        elif isinstance(entry, ModuleType):
            hooks.append(HookModule.read(entry, entry_point, enabled))
    quarantine = [failure for failure in failures if not failure.enabled.must_load]
    loaded = Loaded(selection, tuple(tasks), tuple(hooks), quarantine)
    errors = [*selection.errors, *(failure.error for failure in failures if failure.enabled.must_load)]
    raise_grouped([*errors, *(loaded.settings_errors() if reads_settings else ())])
    for failure in quarantine:
        failure.warn()
    warn_of_taken_names(selection)
    return loaded


def try_all(selection: Selection) -> list[Failure]:
    """Import every entry point of the enabled plugins; return those that fail. Raises nothing."""
    _, failures = _load_entries(selection, GROUPS)
    return failures


def enable_server(loaded: Loaded, setting: str) -> Loaded:
    """Return the plugins with one that serves a field of `PoolerConfig`: enabled already, or a part of poolkit.

    Raises:
        ConfigError: there is none, or it is disabled.
        PluginError: its settings are wrong.
        StartupError: several of them are.
    """
    if any(setting in module.serves for module in loaded.hooks):
        return loaded
    selection = loaded.selection
    for plugin in selection.installed.plugins:
        if not (plugin.is_part_of_poolkit and plugin.in_group(HOOKS)):
            continue
        enabled = Enabled(plugin, Reference(plugin.name, f"pooler_config.{setting}"))
        hooks = load(replace(selection, enabled=(enabled,), errors=()), reads_settings=False).hooks
        if not any(setting in module.serves for module in hooks):
            continue
        if (disabled := selection.disabled_plugins.get(plugin.name)) is not None:
            raise ConfigError(
                f"pooler_config.{setting} needs the plugin {plugin.name}, which is disabled {disabled.where}. "
                "Leave out one or the other."
            )
        selection = replace(selection, enabled=(*selection.enabled, enabled))
        loaded = replace(loaded, selection=selection, hooks=(*loaded.hooks, *hooks))
        raise_grouped(loaded.settings_errors())
        return loaded
    raise ConfigError(f"pooler_config.{setting} needs a plugin that serves it, and no enabled one does.")


def _load_entries(
    selection: Selection, groups: Collection[str]
) -> tuple[list[tuple[EntryPoint, Enabled, object]], list[Failure]]:
    """Load the enabled entry points of these groups, and try those of others that have a wrong name."""
    entries: list[tuple[EntryPoint, Enabled, object]] = []
    failures: list[Failure] = []
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.entry_points:
            is_wanted = entry_point.group in groups or name_problem(entry_point) is not None
            if not is_wanted or selection.disabled_task(entry_point) is not None:
                continue
            try:
                entry = load_entry(entry_point, enabled, selection.installed.core)
            except PluginError as error:
                failures.append(Failure(entry_point, enabled, error))
            else:
                entries.append((entry_point, enabled, entry))
    return entries, failures


def _setting_names(model: type[BaseModel]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}
