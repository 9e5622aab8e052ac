"""What to tell a user who asked for a task and does not get it."""

from __future__ import annotations

from collections.abc import Sequence

from poolkit.contract import PoolingTask, Removed
from poolkit.errors import (
    PluginInvalidError,
    PoolkitError,
    TaskConflictError,
    UnknownTaskError,
    UnsupportedTaskError,
    did_you_mean,
)
from poolkit.models import ModelInfo
from poolkit.registry._discovery import TASKS, Plugin
from poolkit.registry._loading import Loaded, LoadedTask

__all__ = ["conflict", "gone", "not_listed", "serves_nothing", "unavailable", "unknown", "unknown_in", "unsupported"]


def unknown(loaded: Loaded, name: str) -> UnknownTaskError:
    """Return the error for a name that no enabled plugin provides."""
    installed = loaded.selection.installed
    providers = installed.providers(TASKS, name)
    if providers:
        return unavailable(loaded, name, providers)
    tasks = [task.target for task in loaded.tasks if isinstance(task.target, PoolingTask)]
    operations = {(operation.name, task.name) for task in tasks for operation in task.operations}
    owners = sorted(task for operation, task in operations if operation == name)
    if owners:
        hint = f" It is an operation of {', '.join(owners)}."
    else:
        hint = did_you_mean(name, sorted(installed.names(TASKS) | {operation for operation, _ in operations}))
    return UnknownTaskError(f"no task named {name!r}.{hint}\n  {_list_enabled(loaded)}", task=name)


def unknown_in(plugin: Plugin, name: str) -> UnknownTaskError:
    """Return the error for a name that the plugin chosen does not provide."""
    names = [entry.name for entry in plugin.in_group(TASKS)]
    return UnknownTaskError(
        f"{plugin} has no task named {name!r}.{did_you_mean(name, names)}\n  Its tasks: {', '.join(names) or 'none'}.",
        task=name,
    )


def unavailable(loaded: Loaded, name: str, providers: Sequence[Plugin]) -> UnknownTaskError:
    """Return why a task that `providers` have installed is not there to be served."""
    selection = loaded.selection
    for failure in loaded.quarantined:
        if failure.entry_point.name == name and failure.plugin in providers:
            error = UnknownTaskError(f"task {name!r} of {failure.plugin} is not available: {failure.error}", task=name)
            error.__cause__ = failure.error
            return error
    if name in selection.disabled_tasks:
        return UnknownTaskError(
            f"task {name!r} is disabled {selection.disabled_tasks[name].where}. Take it off there to serve it.",
            task=name,
        )
    first = providers[0]
    if first.name in selection.disabled_plugins:
        where = selection.disabled_plugins[first.name].where
        return UnknownTaskError(
            f"task {name!r} is provided by {first}, which is disabled {where}. Take it off there to serve the task.",
            task=name,
        )
    which = "which is" if len(providers) == 1 else "which are"
    return UnknownTaskError(
        f"task {name!r} is provided by {' and '.join(map(str, providers))}, {which} installed but not enabled.\n"
        f'  Enable it with  enable = ["{first.name}"]  in poolkit.toml, or --plugin {first.name}.',
        task=name,
    )


def gone(found: LoadedTask) -> PoolkitError:
    """Return the error for a name that leads to no task: it was removed, or renamed to what was renamed again."""
    if isinstance(found.target, Removed):
        return UnknownTaskError(
            f"task {found.name!r} was removed in {found.plugin.name} {found.target.since}. "
            f"Use {found.target.instead} instead.",
            task=found.name,
        )
    return PluginInvalidError(
        f"{found.plugin}: task {found.name!r} is a former name that another one leads to. Point both to the task.",
        plugin=found.plugin.name,
    )


def conflict(name: str, providers: Sequence[LoadedTask]) -> TaskConflictError:
    """Return the error for a name that several enabled plugins provide."""
    ordered = sorted(providers, key=lambda task: task.plugin.name)
    width = max(len(str(task.plugin)) for task in ordered)
    table = "".join(f"\n    {task.plugin!s:<{width}}  {task.entry_point.value}" for task in ordered)
    return TaskConflictError(
        f"task {name!r} is provided by {len(ordered)} enabled plugins:{table}\n"
        f'  Choose one with  task = "{ordered[-1].plugin.name}:{name}",  or disable the other.',
        task=name,
    )


def unsupported(name: str, reason: str, supported: Sequence[str], model: ModelInfo) -> UnsupportedTaskError:
    """Return the error for a task that the model cannot serve for that reason."""
    return UnsupportedTaskError(
        f"model {model.name!r} cannot serve {name!r}: {reason.rstrip('.')}.\n"
        f"  The model produces {', '.join(model.outputs)}. {_list_supported(supported)}",
        task=name,
    )


def not_listed(name: str, supported: Sequence[str]) -> UnsupportedTaskError:
    """Return the error for a task that is not among those the model is said to support."""
    return UnsupportedTaskError(f"the model cannot serve {name!r}. {_list_supported(supported)}", task=name)


def serves_nothing(loaded: Loaded, model: ModelInfo | None) -> UnsupportedTaskError:
    """Return the error for a model that no enabled task fits. It names no task."""
    subject = "the model" if model is None else f"model {model.name!r}"
    produces = "" if model is None else f"The model produces {', '.join(model.outputs)}. "
    return UnsupportedTaskError(
        f"{subject} cannot serve any enabled task.\n  {produces}{_list_enabled(loaded)}", task=""
    )


def _list_enabled(loaded: Loaded) -> str:
    return f"Enabled tasks: {', '.join(loaded.task_names()) or 'none'}."


def _list_supported(supported: Sequence[str]) -> str:
    return f"It can serve: {', '.join(supported) or 'none of the enabled tasks'}."
