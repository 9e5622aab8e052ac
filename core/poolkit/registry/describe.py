"""Describe one plugin from the plugin itself: the content of `poolkit plugins info`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from poolkit.config import Reference
from poolkit.contract import NoSettings, Operation, PoolingTask
from poolkit.registry.discover import HOOKS, TASKS, Plugin
from poolkit.registry.hooks import HookModule
from poolkit.registry.importing import import_object, plugin_code
from poolkit.registry.listing import Status, list_rows
from poolkit.registry.load import LoadedTask, load
from poolkit.registry.select import Enabled, Selection, no_such_name, no_such_task, not_found

__all__ = ["HookModuleInfo", "OperationInfo", "PluginInfo", "TaskInfo", "describe", "operation_paths"]

ASKED_BY = Reference("info", "poolkit plugins info")
POOLING = "pooling"
SHOWN_APART = {"name", "operations", "settings", "requires"}

Schema = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """An operation; `request` and `response` are JSON schemas."""

    name: str
    routes: tuple[str, ...]
    io_processor: str
    defined_at: str
    request: Schema
    response: Schema


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task.

    Attributes:
        entry_point: as its author wrote it.
        defined_at: the file of its module.
        declares: the other fields of the descriptor.
        wrapped_by: the enabled plugins with hook modules, the first one outermost.
        settings: JSON schema.
    """

    name: str
    entry_point: str
    defined_at: str
    declares: Mapping[str, str | int]
    wrapped_by: tuple[str, ...]
    settings: Schema
    operations: tuple[OperationInfo, ...]


@dataclass(frozen=True, slots=True)
class HookModuleInfo:
    """A hook module; `hooks` says where each of its hooks is defined, `serves` which settings of the operator's."""

    entry_point: str
    defined_at: str
    serves: tuple[str, ...]
    hooks: Mapping[str, str]
    settings: Schema


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin: whether and why it is used, and what it provides.

    Attributes:
        entries: entry points to engines, dialects, parts of models and modalities, by kind; none where one task was
            asked for.
    """

    plugin: str
    version: str
    location: str
    requires_poolkit: str
    status: Status
    why: str
    tasks: tuple[TaskInfo, ...]
    hooks: tuple[HookModuleInfo, ...]
    entries: Mapping[str, tuple[str, ...]]


def describe(selection: Selection, name: str) -> tuple[PluginInfo, ...]:
    """Import and describe the plugin of that name, or those that provide the task: "ner" or "plugin:ner".

    Raises:
        PluginError: there is none, or it cannot be loaded.
        UnknownTaskError: the plugin in "plugin:ner" has no such task.
        StartupError: several of its entry points cannot be loaded.
    """
    found = list(_find(selection, name))
    if not found:
        raise no_such_name(name, selection.installed)
    return tuple(_describe_plugin(selection, plugin, task) for plugin, task in found)


def _find(selection: Selection, name: str) -> Iterator[tuple[Plugin, str | None]]:
    """Yield plugins, each with the task that was meant, if one was. A task's name goes before a plugin's short name.

    The name of a built-in task means that one, and those of enabled plugins: no other plugin is imported for it.
    """
    installed = selection.installed
    plugin_name, _, task = name.rpartition(":")
    plugin = installed.find(plugin_name or task)
    if plugin_name:
        if plugin is None:
            raise not_found(plugin_name, f'named in "{name}"', installed)
        if not plugin.provides(TASKS, task):
            raise no_such_task(plugin, task)
        yield plugin, task
        return
    providers = installed.providers(TASKS, task)
    if plugin is not None and (plugin.name == task or not providers):
        yield plugin, None
        return
    if any(provider.is_builtin for provider in providers):
        enabled = [enabled.plugin for enabled in selection.enabled]
        providers = tuple(provider for provider in providers if provider.is_builtin or provider in enabled)
    yield from ((provider, task) for provider in providers)


def operation_paths(task: PoolingTask) -> dict[str, tuple[str, ...]]:
    """Return the paths of each operation of a task, by its name.

    The first one has `/pooling` too, unless one is named so: a dialect reads that.
    """
    paths = {
        operation.name: (f"/tasks/{task.name}/{operation.name}", *operation.routes) for operation in task.operations
    }
    if POOLING not in paths:
        paths[task.operations[0].name] += (f"/{POOLING}",)
    return paths


def _describe_plugin(selection: Selection, plugin: Plugin, task: str | None) -> PluginInfo:
    """Load this plugin alone, and of its tasks only the one that was asked for, if any."""
    others = {entry.name: ASKED_BY for entry in plugin.in_group(TASKS) if task not in (None, entry.name)}
    alone = (Enabled(plugin, ASKED_BY),)
    loaded = load(replace(selection, enabled=alone, disabled_tasks=others, errors=()), reads_settings=False)
    wrapped_by = tuple(enabled.plugin.name for enabled in selection.enabled if enabled.plugin.in_group(HOOKS))
    row = next(row for row in list_rows(selection) if row.plugin == plugin.name and (task is None or row.name == task))
    entries: dict[str, tuple[str, ...]] = {}
    for entry in plugin.entry_points if task is None else ():
        if entry.group not in (TASKS, HOOKS):
            entries[entry.kind] = (*entries.get(entry.kind, ()), str(entry))
    return PluginInfo(
        plugin=plugin.name,
        version=plugin.version,
        location=str(plugin.location),
        requires_poolkit=plugin.requires_poolkit,
        status=row.status,
        why=row.why,
        tasks=tuple(_describe_task(found, wrapped_by) for found in loaded.tasks),
        hooks=tuple(_describe_module(module) for module in loaded.hooks),
        entries=entries,
    )


def _describe_task(found: LoadedTask, wrapped_by: tuple[str, ...]) -> TaskInfo:
    target = found.target
    declares: dict[str, str | int] = {}
    for field in fields(target):
        value = getattr(target, field.name)
        if field.name not in SHOWN_APART and value not in (None, ()):
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            declares[field.name] = value if isinstance(value, int) else shown
    settings: type[BaseModel] = NoSettings
    operations: list[OperationInfo] = []
    if isinstance(target, PoolingTask):
        if target.requires is not None:
            declares["requires"] = _source(target.requires)
        settings = target.settings
        paths = operation_paths(target)
        operations = [_describe_operation(each, paths[each.name], found.enabled) for each in target.operations]
    return TaskInfo(
        name=found.name,
        entry_point=str(found.entry_point),
        defined_at=_source(importlib.import_module(found.entry_point.value.partition(":")[0])),
        declares=declares,
        wrapped_by=wrapped_by,
        settings=_schema(settings, found.enabled),
        operations=tuple(operations),
    )


def _describe_operation(operation: Operation, paths: tuple[str, ...], enabled: Enabled) -> OperationInfo:
    path = operation.io_processor
    return OperationInfo(
        name=operation.name,
        routes=paths,
        io_processor=path,
        defined_at=_source(import_object(path, enabled, processor=path)),
        request=_schema(operation.request, enabled),
        response=_schema(operation.response, enabled, mode="serialization"),
    )


def _describe_module(module: HookModule) -> HookModuleInfo:
    return HookModuleInfo(
        entry_point=str(module.entry_point),
        defined_at=_source(importlib.import_module(module.name)),
        serves=module.serves,
        hooks={hook: _source(function) for hook, function in module.hooks.items()},
        settings=_schema(module.settings, module.enabled),
    )


def _schema(model: type[BaseModel], enabled: Enabled, *, mode: JsonSchemaMode = "validation") -> Schema:
    with plugin_code(enabled, f"cannot describe {model.__name__} as JSON schema"):
        return model.model_json_schema(mode=mode)


def _source(definition: object) -> str:
    """Return file and line of a module, class or function, as far as they are known."""
    if inspect.ismodule(definition):
        return definition.__file__ or definition.__name__
    try:
        _, line = inspect.getsourcelines(definition)  # type: ignore[arg-type]  # what has no source raises
        return f"{inspect.getsourcefile(definition)}:{line}"  # type: ignore[arg-type]  # ditto
    except (OSError, TypeError):
        return f"{getattr(definition, '__module__', '?')}:{getattr(definition, '__qualname__', definition)}"
