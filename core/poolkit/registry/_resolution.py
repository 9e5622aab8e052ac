"""Step 4: which task one model serves. Settled from the model's files, before its weights are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from poolkit.contract import Output, PoolingTask, Renamed
from poolkit.models import ModelInfo
from poolkit.registry import _refusals as refusals
from poolkit.registry._discovery import TASKS
from poolkit.registry._loading import Loaded, LoadedTask
from poolkit.registry._selection import not_found

__all__ = ["get_pooling_task", "refusals_of", "supported_tasks", "tasks_offering"]

MISSING = {
    Output.VECTOR: "it gives no sentence vector",
    Output.LOGITS: "it has no classification head",
    Output.TOKEN_VECTORS: "it gives no token vectors",
    Output.TOKEN_LOGITS: "it has no token classification head",
    Output.HIDDEN: "it gives no hidden states",
    Output.REWARDS: "it is no reward model: it has neither a classification head nor pooling_type STEP",
}


def supported_tasks(loaded: Loaded, model: ModelInfo) -> tuple[str, ...]:
    """Return the names of the enabled tasks that the model can serve, best first.

    Built-in tasks come before those of other plugins, then the model's own order of outputs counts, then the name: what
    a model serves by default does not change when a plugin is installed or enabled.
    """
    ranks = {}
    for name in loaded.task_names():
        for found in loaded.providers(name):
            task = found.target
            if isinstance(task, PoolingTask) and _why_not(found, task, model) is None:
                ranks[name] = (not found.plugin.is_builtin, model.outputs.index(task.output), name)
    return tuple(sorted(ranks, key=ranks.__getitem__))


def tasks_offering(loaded: Loaded, operation: str, model: ModelInfo) -> tuple[str, ...]:
    """Return the names of the enabled tasks that offer an operation and that the model can serve, best first."""
    offering = {
        found.name
        for found in loaded.tasks
        if isinstance(found.target, PoolingTask) and any(one.name == operation for one in found.target.operations)
    }
    return tuple(name for name in supported_tasks(loaded, model) if name in offering)


def refusals_of(loaded: Loaded, model: ModelInfo) -> dict[str, str]:
    """Return the names of the enabled tasks that the model cannot serve, each with why it cannot."""
    reasons = {}
    for found in loaded.tasks:
        if isinstance(found.target, PoolingTask):
            reason = _why_not(found, found.target, model)
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
            raise refusals.serves_nothing(loaded, model)
    found = _follow(loaded, _find(loaded, task))
    if not isinstance(found.target, PoolingTask):
        raise refusals.gone(found)
    if model is not None:
        reason = _why_not(found, found.target, model)
        if reason is not None:
            raise refusals.unsupported(found.target.name, reason, supported_tasks, model)
    elif found.target.name not in supported_tasks:
        raise refusals.not_listed(found.target.name, supported_tasks)
    return found.target


def _find(loaded: Loaded, request: str) -> LoadedTask:
    plugin, _, name = request.rpartition(":")
    if plugin:
        return _find_in(loaded, plugin, name)
    providers = loaded.providers(name)
    if len(providers) > 1:
        raise refusals.conflict(name, providers)
    if not providers:
        raise refusals.unknown(loaded, name)
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
        raise refusals.unavailable(loaded, name, [plugin])
    raise refusals.unknown_in(plugin, name)


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


def _why_not(found: LoadedTask, task: PoolingTask, model: ModelInfo) -> str | None:
    """Return why the model cannot serve the task, or None if it can."""
    if task.output not in model.outputs:
        pooling_type = model.config.pooler_config.pooling_type
        if task.output is Output.VECTOR and pooling_type in ("ALL", "STEP"):
            leaves = f"pooler_config.pooling_type {pooling_type} leaves each token its own"
            return f"{leaves}; CLS, LAST and MEAN make one vector"
        return MISSING[task.output]
    if task.requires is None:
        return None
    try:
        return task.requires(model)
    except Exception as error:  # noqa: BLE001 - one plugin's failure must not keep the others from being served
        return f"{found.plugin} failed to tell whether it can: {type(error).__name__}: {error}"
