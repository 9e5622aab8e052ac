"""Step 4: which task one model serves. Settled from the model's files, before its weights are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from poolkit.contract import Output, PoolingTask, Removed, Renamed
from poolkit.errors import (
    PluginInvalidError,
    PoolkitError,
    TaskConflictError,
    UnknownTaskError,
    UnsupportedTaskError,
    did_you_mean,
)
from poolkit.models import ModelInfo
from poolkit.registry.discover import TASKS, Plugin
from poolkit.registry.load import Loaded, LoadedTask
from poolkit.registry.select import not_found

__all__ = ["get_pooling_task", "supported_tasks", "tasks_offering", "unsupported_reasons"]

MISSING = {
    Output.VECTOR: "it gives no sentence vector",
    Output.LOGITS: "it has no classification head",
    Output.TOKEN_VECTORS: "it gives no token vectors",
    Output.TOKEN_LOGITS: "it has no token classification head",
    Output.HIDDEN: "it gives no hidden states",
    Output.LABEL_LOGITS: "it is no causal language model",
}


def supported_tasks(loaded: Loaded, model: ModelInfo) -> tuple[str, ...]:
    """Return the names of the enabled tasks that the model can serve, best first.

    Built-in tasks come before those of other plugins, then each task's own preference counts, then the model's order of
    outputs, then the name: what a model serves by default does not change when a plugin is installed or enabled.
    """
    ranks = {}
    for name in loaded.task_names():
        for found in loaded.providers(name):
            task = found.target
            if isinstance(task, PoolingTask) and _unsupported_reason(found, task, model) is None:
                rank = model.outputs.index(task.for_model(model).output)
                ranks[name] = (not found.plugin.is_builtin, -_preference(task, model), rank, name)
    return tuple(sorted(ranks, key=ranks.__getitem__))


def tasks_offering(loaded: Loaded, operation: str, model: ModelInfo | None = None) -> tuple[str, ...]:
    """Return the names of the enabled tasks that offer an operation; those that the model can serve, best first."""
    offering = dict.fromkeys(
        found.name
        for found, task in loaded.pooling_tasks()
        if operation in {offered.name for offered in task.operations}
    )
    if model is None:
        return tuple(offering)
    return tuple(name for name in supported_tasks(loaded, model) if name in offering)


def unsupported_reasons(loaded: Loaded, model: ModelInfo) -> dict[str, str]:
    """Return the names of the enabled tasks that the model cannot serve, each with why it cannot."""
    reasons = {}
    for found, task in loaded.pooling_tasks():
        reason = _unsupported_reason(found, task, model)
        if reason is not None:
            reasons[found.name] = reason.rstrip(".")
    return dict(sorted(reasons.items()))


def get_pooling_task(
    loaded: Loaded, supported_tasks: Sequence[str], task: str | None = None, *, model: ModelInfo | None = None
) -> PoolingTask:
    """Return the one task to serve.

    Args:
        loaded: the enabled tasks.
        supported_tasks: what the model can do, best first.
        task: a task's name, or "plugin:task" where several plugins provide one. By default the first of
            `supported_tasks` that is enabled.
        model: where given, its files decide whether it can serve `task`, and say why not.

    Raises:
        UnknownTaskError: no enabled plugin provides the task.
        TaskConflictError: several do, and the name does not say which.
        UnsupportedTaskError: the model cannot serve the task, or none at all.
        PluginError: "plugin:task" names a plugin that is not installed, or a plugin's former name leads nowhere.
    """
    if task is None:
        task = next((name for name in supported_tasks if loaded.providers(name)), None)
        if task is None:
            raise _serves_nothing(loaded, model)
    found = _follow(loaded, _find(loaded, task))
    if not isinstance(found.target, PoolingTask):
        raise _gone(found)
    if model is not None:
        reason = _unsupported_reason(found, found.target, model)
        if reason is not None:
            raise _unsupported(found.target.name, reason, supported_tasks, model)
        return found.target.for_model(model)
    if found.target.name not in supported_tasks:
        raise _not_listed(found.target.name, supported_tasks)
    return found.target


def _find(loaded: Loaded, request: str) -> LoadedTask:
    plugin, _, name = request.rpartition(":")
    if plugin:
        return _find_in(loaded, plugin, name)
    providers = loaded.providers(name)
    if len(providers) > 1:
        raise _conflict(name, providers)
    if not providers:
        raise _unknown(loaded, name)
    return providers[0]


def _find_in(loaded: Loaded, plugin_name: str, name: str) -> LoadedTask:
    installed = loaded.selection.installed
    plugin = installed.find(plugin_name)
    if plugin is None:
        raise not_found(plugin_name, f'chosen by task "{plugin_name}:{name}"', installed)
    for task in loaded.tasks:
        if task.plugin == plugin and task.name == name:
            return task
    if plugin.provides(TASKS, name):
        raise _unavailable(loaded, name, [plugin])
    raise _unknown_in(plugin, name)


def _follow(loaded: Loaded, found: LoadedTask) -> LoadedTask:
    """Return what a former name leads to, and tell the user that it is one. One step: a chain is no task."""
    renamed = found.target
    if not isinstance(renamed, Renamed):
        return found
    warnings.warn(
        f"Task {found.name!r} is called {renamed.to!r} since {found.plugin.name} {renamed.since}. Use that name.",
        FutureWarning,
        stacklevel=2,
    )
    is_own = found.plugin.provides(TASKS, renamed.to)
    return _find(loaded, f"{found.plugin.name}:{renamed.to}" if is_own else renamed.to)


def _unsupported_reason(found: LoadedTask, task: PoolingTask, model: ModelInfo) -> str | None:
    """Return why the model cannot serve the task, or None if it can."""
    refusal = _refusal(found, task, model)
    if task.for_model(model).output not in model.outputs:
        if task.or_outputs and refusal is not None:
            return refusal  # of several kinds of output, the task itself says best what is missing
        if task.output in model.unsupported:
            return model.unsupported[task.output]
        pooling_type = model.config.pooler_config.pooling_type
        if task.output is Output.VECTOR and pooling_type in ("ALL", "STEP"):
            leaves = f"pooler_config.pooling_type {pooling_type} leaves each token its own"
            return f"{leaves}; CLS, LAST and MEAN make one vector"
        return MISSING[task.output]
    return refusal


def _preference(task: PoolingTask, model: ModelInfo) -> int:
    return 0 if task.preference is None else task.preference(model)


def _refusal(found: LoadedTask, task: PoolingTask, model: ModelInfo) -> str | None:
    """Return what the task itself says against the model."""
    if task.requires is None:
        return None
    try:
        return task.requires(model)
    except Exception as error:  # noqa: BLE001 - one plugin's failure must not keep the others from being served
        return f"{found.plugin} failed to tell whether it can: {type(error).__name__}: {error}"


def _unknown(loaded: Loaded, name: str) -> UnknownTaskError:
    """Return the error for a name that no enabled plugin provides."""
    installed = loaded.selection.installed
    providers = installed.providers(TASKS, name)
    if providers:
        return _unavailable(loaded, name, providers)
    operations = {(operation.name, task.name) for _, task in loaded.pooling_tasks() for operation in task.operations}
    tasks_with_it = sorted(task for operation, task in operations if operation == name)
    if tasks_with_it:
        hint = f" It is an operation of {', '.join(tasks_with_it)}."
    else:
        hint = did_you_mean(name, sorted(installed.names(TASKS) | {operation for operation, _ in operations}))
    return UnknownTaskError(f"no task named {name!r}.{hint}\n  {_list_enabled(loaded)}", task=name)


def _unknown_in(plugin: Plugin, name: str) -> UnknownTaskError:
    """Return the error for a name that the plugin chosen does not provide."""
    names = [entry.name for entry in plugin.in_group(TASKS)]
    return UnknownTaskError(
        f"{plugin} has no task named {name!r}.{did_you_mean(name, names)}\n  Its tasks: {', '.join(names) or 'none'}.",
        task=name,
    )


def _unavailable(loaded: Loaded, name: str, providers: Sequence[Plugin]) -> UnknownTaskError:
    """Return why a task that `providers` have installed is not there to be served."""
    selection = loaded.selection
    for failure in loaded.quarantined:
        if failure.entry_point.name == name and failure.plugin in providers:
            error = UnknownTaskError(f"task {name!r} of {failure.plugin} is not available: {failure.error}", task=name)
            error.__cause__ = failure.error
            return error
    if name in selection.disabled_tasks:
        return UnknownTaskError(
            f"task {name!r} is disabled {selection.disabled_tasks[name].where}. Remove it from disable to serve it.",
            task=name,
        )
    first = providers[0]
    if first.name in selection.disabled_plugins:
        where = selection.disabled_plugins[first.name].where
        return UnknownTaskError(
            f"task {name!r} is provided by {first}, which is disabled {where}. "
            "Remove it from disable to serve the task.",
            task=name,
        )
    which = "which is" if len(providers) == 1 else "which are"
    return UnknownTaskError(
        f"task {name!r} is provided by {' and '.join(map(str, providers))}, {which} installed but not enabled.\n"
        f'  Enable it with  enable = ["{first.name}"]  in poolkit.toml, or --plugin {first.name}.',
        task=name,
    )


def _gone(found: LoadedTask) -> PoolkitError:
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


def _conflict(name: str, providers: Sequence[LoadedTask]) -> TaskConflictError:
    """Return the error for a name that several enabled plugins provide."""
    ordered = sorted(providers, key=lambda task: task.plugin.name)
    width = max(len(str(task.plugin)) for task in ordered)
    table = "".join(f"\n    {task.plugin!s:<{width}}  {task.entry_point.value}" for task in ordered)
    return TaskConflictError(
        f"task {name!r} is provided by {len(ordered)} enabled plugins:{table}\n"
        f'  Choose one with  task = "{ordered[-1].plugin.name}:{name}",  or disable the other.',
        task=name,
    )


def _unsupported(name: str, reason: str, supported: Sequence[str], model: ModelInfo) -> UnsupportedTaskError:
    """Return the error for a task that the model cannot serve for that reason."""
    return UnsupportedTaskError(
        f"model {model.name!r} cannot serve {name!r}: {reason.rstrip('.')}.\n"
        f"  The model produces {', '.join(model.outputs)}. {_list_supported(supported)}",
        task=name,
    )


def _not_listed(name: str, supported: Sequence[str]) -> UnsupportedTaskError:
    """Return the error for a task that is not among those the model is said to support."""
    return UnsupportedTaskError(f"the model cannot serve {name!r}. {_list_supported(supported)}", task=name)


def _serves_nothing(loaded: Loaded, model: ModelInfo | None) -> UnsupportedTaskError:
    """Return the error for a model that no enabled task fits. It names no task."""
    subject = "the model" if model is None else f"model {model.name!r}"
    produces = "" if model is None else f"The model produces {', '.join(model.outputs)}. "
    reasons = (
        ""
        if model is None
        else "".join(f" {reason.rstrip('.')}." for reason in dict.fromkeys(model.unsupported.values()))
    )
    return UnsupportedTaskError(
        f"{subject} cannot serve any enabled task.{reasons}\n  {produces}{_list_enabled(loaded)}", task=""
    )


def _list_enabled(loaded: Loaded) -> str:
    return f"Enabled tasks: {', '.join(loaded.task_names()) or 'none'}."


def _list_supported(supported: Sequence[str]) -> str:
    return f"It can serve: {', '.join(supported) or 'none of the enabled tasks'}."
