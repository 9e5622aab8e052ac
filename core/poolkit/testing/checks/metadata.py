"""Checks of what a plugin says of itself: its entry points, its version numbers, its descriptors."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from types import ModuleType

from packaging.specifiers import SpecifierSet

from poolkit.contract import API_OLDEST, API_VERSION, Dialect, PoolingTask, Removed, Renamed
from poolkit.errors import PoolkitError
from poolkit.registry import DIALECTS, ENGINES, HOOKS, TASKS, EntryPoint, Registry
from poolkit.testing.checks.check import check
from poolkit.testing.checks.importing import import_is_survived
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.serving import FAKES, find_fake

__all__ = [
    "api_is_supported",
    "entry_points_resolve",
    "names_match",
    "plugin_loads",
    "requirement_is_bounded",
    "settings_forbid_extras",
]

UPPER_BOUNDS = ("<", "<=", "==", "===", "~=")


@check(since="0.1", needs=(import_is_survived,))
def entry_points_resolve(plugin: PluginUnderTest) -> Iterator[str]:
    """Every entry point can be imported and is what its group asks for."""
    for entry in plugin.installed.entry_points:
        try:
            target = pkgutil.resolve_name(entry.value)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin's own code may raise anything
            yield f"{entry} cannot be imported: {format_error(error)}"
            continue
        if (expected := _kind_problem(entry, target)) is not None:
            yield f"{entry} is of type {type(target).__name__}. Group {entry.group} takes {expected}."
        if isinstance(target, PoolingTask):
            try:
                find_fake(plugin.installed.name, target.name)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - ditto
                yield f"the entry point {target.name!r} of group {FAKES} cannot be used: {format_error(error)}"


def _kind_problem(entry: EntryPoint, target: object) -> str | None:
    is_engine = callable(getattr(target, "load_backbone", None))
    dialects = target if isinstance(target, tuple) else (target,)
    kinds = {
        TASKS: (isinstance(target, PoolingTask | Renamed | Removed), "a PoolingTask, Renamed or Removed"),
        HOOKS: (isinstance(target, ModuleType), "a module"),
        ENGINES: (is_engine, "what has a function load_backbone"),
        DIALECTS: (all(isinstance(one, Dialect) for one in dialects), "a Dialect or a tuple of them"),
    }
    is_right, expected = kinds.get(entry.group, (True, ""))
    return None if is_right else expected


@check(since="0.1", needs=(entry_points_resolve,))
def names_match(plugin: PluginUnderTest) -> Iterator[str]:
    """A task has the name of its entry point, or of another one that points to the same object."""
    for entry, task in plugin.tasks.items():
        has_its_name = plugin.installed.provides(TASKS, task.name)
        if entry.name != task.name and not has_its_name:
            yield f"entry point {entry.name!r} points to a task named {task.name!r}. Give them one name."


@check(since="0.1", needs=(entry_points_resolve,))
def api_is_supported(plugin: PluginUnderTest) -> Iterator[str]:
    """A task was written for a version of the plugin API that the running poolkit supports."""
    for task in plugin.tasks.values():
        if task.api not in range(API_OLDEST, API_VERSION + 1):
            yield f"task {task.name!r} has api={task.api!r}; poolkit supports {API_OLDEST} to {API_VERSION}."


@check(since="0.1")
def requirement_is_bounded(plugin: PluginUnderTest) -> Iterator[str]:
    """The plugin requires poolkit below some version, so that pip never pairs it with one it does not know."""
    if plugin.is_part_of_poolkit:
        raise NotApplicableError("this is a part of poolkit itself")
    specifiers = SpecifierSet(plugin.installed.requires_poolkit)
    if not any(specifier.operator in UPPER_BOUNDS for specifier in specifiers):
        shown = f"poolkit{specifiers}" if specifiers else "no poolkit at all"
        yield f'it requires {shown}. Give an upper bound:  dependencies = ["poolkit>=0.1,<0.2"].'


@check(since="0.1", needs=(entry_points_resolve,))
def settings_forbid_extras(plugin: PluginUnderTest) -> Iterator[str]:
    """The settings refuse keys they do not know, so that a typing error in poolkit.toml is noticed."""
    for model in plugin.settings_models:
        if model.model_config.get("extra") != "forbid":
            yield f'{model.__name__} accepts unknown keys. Give it  model_config = ConfigDict(extra="forbid").'


@check(since="0.1", needs=(entry_points_resolve, names_match, api_is_supported, settings_forbid_extras))
def plugin_loads(plugin: PluginUnderTest) -> Iterator[str]:
    """The registry accepts the plugin and its descriptors."""
    try:
        Registry.load(plugin.config)
    except PoolkitError as error:
        yield str(error)
