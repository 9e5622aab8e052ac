"""Step 3: import the tasks of the enabled plugins and check each against the contract. One try per entry point."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from poolkit.contract import API_OLDEST, API_VERSION, PoolingTask, Removed, Renamed
from poolkit.errors import PluginError, PluginIncompatibleError, PluginInvalidError, PoolkitError, StartupError
from poolkit.registry._checking import check_entry_name, check_task
from poolkit.registry._discovery import TASKS, EntryPoint, Plugin
from poolkit.registry._importing import import_object
from poolkit.registry._selection import Enabled, Selection

__all__ = ["Loaded", "LoadedTask", "Quarantined", "load", "raise_together"]

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
    """A task that only `"*"` enabled and that could not be loaded."""

    entry_point: EntryPoint
    plugin: Plugin
    error: PluginError


@dataclass(frozen=True, slots=True)
class Loaded:
    """The selection, with its tasks imported."""

    selection: Selection
    tasks: tuple[LoadedTask, ...]
    quarantined: tuple[Quarantined, ...]

    def task_names(self) -> list[str]:
        """Return the names of the tasks themselves, without other and former names, in alphabetical order."""
        return sorted({task.target.name for task in self.tasks if isinstance(task.target, PoolingTask)})

    def providers(self, name: str) -> list[LoadedTask]:
        """Return who provides a name: poolkit alone where it is built in; a task before another's former name."""
        found = [task for task in self.tasks if task.name == name]
        tasks = [task for task in found if isinstance(task.target, PoolingTask)] or found
        return [task for task in tasks if task.plugin.is_builtin] or tasks


def load(selection: Selection) -> Loaded:
    """Import and check the tasks of every enabled plugin.

    Raises:
        PluginError: a plugin that was named cannot be loaded.
        ConfigError: a name in `disable` or in the settings is that of no plugin.
        StartupError: several of these at once.
    """
    tasks = []
    quarantined = []
    errors = list(selection.errors)
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.in_group(TASKS):
            if entry_point.name in selection.disabled_tasks:
                continue
            try:
                tasks.append(LoadedTask(_load_target(entry_point, enabled, selection), entry_point, enabled))
            except PluginError as error:
                if enabled.must_load:
                    errors.append(error)
                else:
                    quarantined.append(Quarantined(entry_point, enabled.plugin, error))
    raise_together(list({str(error): error for error in errors}.values()))
    for failure in quarantined:
        logger.warning(
            "Task %r of %s is not available: %s",
            failure.entry_point.name,
            failure.plugin,
            failure.error,
            exc_info=failure.error.__cause__,
        )
    _warn_of_overrides(tasks)
    return Loaded(selection, tuple(tasks), tuple(quarantined))


def raise_together(errors: Sequence[PoolkitError]) -> None:
    """Raise the only error as it is, several as one StartupError, and nothing if there are none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise StartupError(errors)


def _load_target(entry_point: EntryPoint, enabled: Enabled, selection: Selection) -> PoolingTask | Renamed | Removed:
    plugin = enabled.plugin
    core = selection.installed.core
    if not SpecifierSet(plugin.requires_poolkit).contains(core.version, prereleases=True):
        raise PluginIncompatibleError(
            f"{plugin} needs poolkit {plugin.requires_poolkit}; {core} is running. Install versions that fit.",
            plugin=plugin.name,
        )
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
