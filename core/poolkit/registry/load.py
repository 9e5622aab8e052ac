"""Step 3: import the tasks and hook modules of the enabled plugins and check them. One try per entry point."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError

from poolkit.config import Named
from poolkit.contract import PoolingTask, Removed, Renamed
from poolkit.errors import (
    ConfigError,
    PluginConfigError,
    PluginError,
    PluginInvalidError,
    PoolkitError,
    StartupError,
    UnknownTaskError,
    did_you_mean,
)
from poolkit.registry.check import check_entry_name, check_task
from poolkit.registry.discover import HOOKS, TASKS, EntryPoint, Plugin
from poolkit.registry.entries import Failure, check_names, load_entry
from poolkit.registry.hooks import HookModule, load_hook_module
from poolkit.registry.importing import check_requirement, import_object, raise_grouped
from poolkit.registry.select import Enabled, Selection
from poolkit.validation import complaints

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
        hooks: the hook modules, in the order in which their plugins were enabled.
        quarantined: the failures of plugins that only `"*"` enabled.
    """

    selection: Selection
    tasks: tuple[LoadedTask, ...]
    hooks: tuple[HookModule, ...]
    quarantined: tuple[Failure, ...]

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
        for candidate in self.tasks:
            target = candidate.target
            if target == task or (isinstance(target, PoolingTask) and task in _variants(target)):
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
        models += [task.settings for found, task in self.pooling_tasks() if found.plugin == plugin]
        known = {name for model in models for name in _setting_names(model)}
        if any(failure.plugin == plugin for failure in self.quarantined):
            known |= table.keys()  # they may be those of what could not be loaded
        return _read_settings(plugin, model, table, known=known)


def _variants(task: PoolingTask) -> list[PoolingTask]:
    """Return a task with each of the kinds of output that will do for it."""
    return [replace(task, output=output) for output in task.or_outputs]


def load(selection: Selection, *, reads_settings: bool = True) -> Loaded:
    """Import and check the tasks and hook modules of every enabled plugin.

    Args:
        selection: the enabled plugins.
        reads_settings: check the hook modules' settings as well; those of a task are read when it is bound.

    Raises:
        PluginError: a plugin that was named cannot be loaded.
        PluginConfigError: the settings of a hook module are wrong.
        ConfigError: a name in `disable` or in the settings is that of no plugin.
        StartupError: several of these at once.
    """
    loaded, failures = _load(selection)
    errors = [*selection.errors, *failures, *check_names(selection)]
    errors += _settings_errors(loaded) if reads_settings else ()
    raise_grouped(errors)
    for failure in loaded.quarantined:
        failure.warn()
    return loaded


def try_all(selection: Selection) -> dict[tuple[str, EntryPoint], PluginError]:
    """Import every entry point of the enabled plugins; return what fails, by plugin name. Raises nothing."""
    failures = {}
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.entry_points:
            try:
                _load_any(entry_point, enabled, selection)
            except PluginError as error:
                failures[enabled.plugin.name, entry_point] = error
    return failures


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
            raise_grouped(_settings_errors(loaded))
            return loaded
    raise ConfigError(f"pooler_config.{field} needs a plugin that serves it, and no enabled one does.")


def _load(selection: Selection) -> tuple[Loaded, list[PluginError]]:
    """Return what could be loaded, and the failures of plugins that must load."""
    tasks: list[LoadedTask] = []
    hooks: list[HookModule] = []
    quarantined: list[Failure] = []
    errors: list[PluginError] = []
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.entry_points:
            if entry_point.group not in IMPORTED or _is_disabled(entry_point, selection):
                continue
            try:
                part = _load_any(entry_point, enabled, selection)
            except PluginError as error:
                if enabled.must_load:
                    errors.append(error)
                else:
                    quarantined.append(Failure(entry_point, enabled.plugin, error))
                continue
            if isinstance(part, LoadedTask):
                tasks.append(part)
            elif isinstance(part, HookModule):
                hooks.append(part)
    return Loaded(selection, tuple(tasks), tuple(hooks), tuple(quarantined)), errors


def _load_any(entry_point: EntryPoint, enabled: Enabled, selection: Selection) -> object:
    if entry_point.group not in IMPORTED:
        return load_entry(entry_point, enabled, selection)
    check_requirement(enabled.plugin, selection.installed.core)
    if entry_point.group == HOOKS:
        return load_hook_module(entry_point, enabled)
    return LoadedTask(_load_target(entry_point, enabled, selection.installed.core), entry_point, enabled)


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
    check_task(target, entry_point, plugin, core)
    return target


def _is_disabled(entry_point: EntryPoint, selection: Selection) -> bool:
    return entry_point.group == TASKS and entry_point.name in selection.disabled_tasks


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


def _read_settings(
    plugin: Plugin, model: type[BaseModel], table: Mapping[str, object], *, known: Set[str]
) -> BaseModel:
    """Return a model's part of its plugin's table; `known` are the keys of all parts."""
    values = {name: value for name, value in table.items() if name in _setting_names(model)}
    listing = ", ".join(sorted(known)) or "none"
    problems = [
        f"{name}: no such setting.{did_you_mean(name, sorted(known))} Settings: {listing}."
        for name in table
        if name not in known
    ]
    settings: BaseModel | None = None
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        problems += [f"{complaint}." for complaint in complaints(error, values, model)]
    subject = f"[plugins.{plugin.name}]"
    raise_grouped([PluginConfigError(f"{subject} {problem}", plugin=plugin.name) for problem in problems])
    assert settings is not None  # else there was a problem
    return settings


def _setting_names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}
