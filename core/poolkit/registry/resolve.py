"""Step 4: which task one model serves. Settled from the model's files, before its weights are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches

from poolkit.contract import ModelInfo, Output, PoolingTask, Removed, Renamed
from poolkit.errors import TaskConflictError, UnknownTaskError, UnsupportedTaskError, did_you_mean
from poolkit.registry.discover import TASKS, Plugin
from poolkit.registry.load import Loaded, LoadedTask
from poolkit.registry.select import no_such_task, not_found

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
                preference = 0 if task.preference is None else task.preference(model)
                ranks[name] = (not found.plugin.is_builtin, -preference, rank, name)
    return tuple(sorted(ranks, key=ranks.__getitem__))


def tasks_offering(loaded: Loaded, operation: str, model: ModelInfo | None = None) -> tuple[str, ...]:
    """Return the names of the enabled tasks that offer an operation, poolkit's own first.

    If a model is given, those that it can serve, best first.
    """
    offering = dict.fromkeys(
        found.name for found, task in loaded.pooling_tasks() if operation in {each.name for each in task.operations}
    )
    return tuple(offering if model is None else (name for name in supported_tasks(loaded, model) if name in offering))


def unsupported_reasons(loaded: Loaded, model: ModelInfo) -> dict[str, str]:
    """Return the names of the enabled tasks that the model cannot serve, each with why it cannot."""
    reasons = {
        found.name: reason.rstrip(".")
        for found, task in loaded.pooling_tasks()
        if (reason := _unsupported_reason(found, task, model)) is not None
    }
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
    found = _find(loaded, task)
    if isinstance(found.target, Renamed):
        found = _follow(loaded, found, found.target)
    target = found.target
    if isinstance(target, Removed):
        raise UnknownTaskError(
            f"task {found.name!r} was removed in {found.plugin.name} {target.since}. Use {target.instead} instead.",
            task=found.name,
        )
    if isinstance(target, Renamed):
        raise found.plugin.invalid(
            f"task {found.name!r} is a former name that another one leads to. Point both to the task."
        )
    supported = f"It can serve: {', '.join(supported_tasks) or 'none of the enabled tasks'}."
    if model is None:
        if target.name not in supported_tasks:
            raise UnsupportedTaskError(f"the model cannot serve {target.name!r}. {supported}", task=target.name)
        return target
    reason = _unsupported_reason(found, target, model)
    if reason is not None:
        raise UnsupportedTaskError(
            f"model {model.name!r} cannot serve {target.name!r}: {reason.rstrip('.')}.\n"
            f"  The model produces {', '.join(model.outputs)}. {supported}",
            task=target.name,
        )
    return target.for_model(model)


def _find(loaded: Loaded, request: str) -> LoadedTask:
    """Return what "task" or "plugin:task" names, a former name included."""
    plugin_name, _, name = request.rpartition(":")
    if not plugin_name:
        providers = loaded.providers(name)
        if len(providers) > 1:
            raise _conflict(name, providers)
        if not providers:
            raise _unknown(loaded, name)
        return providers[0]
    installed = loaded.selection.installed
    plugin = installed.find(plugin_name)
    if plugin is None:
        raise not_found(plugin_name, f'chosen by task "{request}"', installed)
    for task in loaded.tasks:
        if task.plugin == plugin and task.name == name:
            return task
    if plugin.provides(TASKS, name):
        raise _unavailable(loaded, name, [plugin])
    raise no_such_task(plugin, name)


def _follow(loaded: Loaded, found: LoadedTask, renamed: Renamed) -> LoadedTask:
    """Return what a former name leads to, and tell the user that it is one. One step: a chain is no task."""
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
    if providers := installed.providers(TASKS, name):
        return _unavailable(loaded, name, providers)
    offering: dict[str, set[str]] = {}
    for _, task in loaded.pooling_tasks():
        for operation in task.operations:
            offering.setdefault(operation.name, set()).add(task.name)
    hint = "" if name in offering else did_you_mean(name, sorted(installed.names(TASKS)))
    for near in get_close_matches(name, sorted(offering), n=1) if not hint else ():
        meant = "" if near == name else f" Did you mean {near!r}?"
        hint = f"{meant} It is an operation of {', '.join(sorted(offering[near]))}."
    return UnknownTaskError(f"no task named {name!r}.{hint}\n  {_list_enabled(loaded)}", task=name)


def _unavailable(loaded: Loaded, name: str, providers: Sequence[Plugin]) -> UnknownTaskError:
    """Return why a task that `providers` have installed is not there to be served."""
    for failure in loaded.quarantined:
        if failure.entry_point.name == name and failure.plugin in providers:
            error = UnknownTaskError(f"task {name!r} of {failure.plugin} is not available: {failure.error}", task=name)
            error.__cause__ = failure.error
            return error
    disabled = loaded.selection.disabled_tasks.get(name)
    if disabled is not None:
        return UnknownTaskError(
            f"task {name!r} is disabled {disabled.where}. Remove it from disable to serve it.", task=name
        )
    return UnknownTaskError(loaded.selection.explain_absence(f"task {name!r}", providers), task=name)


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


def _serves_nothing(loaded: Loaded, model: ModelInfo | None) -> UnsupportedTaskError:
    """Return the error for a model that no enabled task fits. It names no task."""
    enabled = _list_enabled(loaded)
    if model is None:
        return UnsupportedTaskError(f"the model cannot serve any enabled task.\n  {enabled}", task="")
    reasons = "".join(f" {reason.rstrip('.')}." for reason in dict.fromkeys(model.unsupported.values()))
    return UnsupportedTaskError(
        f"model {model.name!r} cannot serve any enabled task.{reasons}\n"
        f"  The model produces {', '.join(model.outputs)}. {enabled}",
        task="",
    )


def _list_enabled(loaded: Loaded) -> str:
    return f"Enabled tasks: {', '.join(loaded.task_names()) or 'none'}."
