"""What makes a task descriptor valid: everything that can be told without importing its processors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pydantic import BaseModel

from poolkit.contract import TASK_NAME, Activation, Operation, Output, PoolingTask
from poolkit.errors import PluginInvalidError
from poolkit.registry._discovery import TASKS, EntryPoint, Plugin

__all__ = ["check_entry_name", "check_task", "settings_problem"]

NAME_RULE = "Use lower-case letters, digits and underscores, a letter first."


def check_entry_name(entry_point: EntryPoint, plugin: Plugin) -> None:
    """Raise PluginInvalidError unless the entry point's name can be a task's."""
    if not TASK_NAME.fullmatch(entry_point.name):
        raise PluginInvalidError(
            f"{plugin}: entry point {entry_point.name!r} is not a task name. {NAME_RULE}", plugin=plugin.name
        )


def check_task(task: PoolingTask, entry_point: EntryPoint, plugin: Plugin) -> None:
    """Raise PluginInvalidError for the first rule that the task breaks."""
    for problem in _task_problems(task, entry_point, plugin):
        raise PluginInvalidError(f"{plugin}: {problem}", plugin=plugin.name)


def settings_problem(settings: object, this: str) -> str | None:
    """Return what is wrong with the settings model of `this`, or None."""
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        return f"{this} has settings={settings!r}. Give a pydantic model class."
    if settings.model_config.get("extra") != "forbid":
        return (
            f"the settings of {this} ({settings.__name__}) accept unknown keys, so typing errors would go unnoticed. "
            'Give the model  model_config = ConfigDict(extra="forbid").'
        )
    return None


def _task_problems(task: PoolingTask, entry_point: EntryPoint, plugin: Plugin) -> Iterator[str]:
    this = f"task {task.name!r}"
    if task.name != entry_point.name and not _is_alias(task, entry_point, plugin):
        yield f"entry point {entry_point.name!r} points to a task named {task.name!r}. Give them one name."
    if task.output not in tuple(Output):
        yield f"{this} has output={task.output!r}. Choose one of {', '.join(Output)}."
    if task.activation not in tuple(Activation):
        yield f"{this} has activation={task.activation!r}. Choose one of {', '.join(Activation)}."
    problem = settings_problem(task.settings, this)
    if problem is not None:
        yield problem
    if _is_tuple_of(Operation, task.operations) and task.operations:
        yield from _operations_problems(task.operations, this)
    else:
        yield f"the operations of {this} are not a tuple of Operation. A tuple of one is written (operation,)."


def _operations_problems(operations: tuple[Operation, ...], this: str) -> Iterator[str]:
    for operation in operations:
        if not TASK_NAME.fullmatch(str(operation.name)):
            yield f"{this} has an operation named {operation.name!r}. {NAME_RULE}"
        which = f"operation {operation.name!r} of {this}"
        for field in ("request", "response"):
            if not _is_model(getattr(operation, field)):
                yield f"{which} has {field}={getattr(operation, field)!r}. Give a pydantic model class."
        unknown = sorted(set(operation.per_prompt) - set(getattr(operation.response, "model_fields", ())))
        if unknown:
            yield f"{which} has per_prompt={operation.per_prompt!r}. Its response has no field {unknown[0]!r}."
        if str(operation.io_processor).count(":") != 1:
            yield f'{which} has io_processor={operation.io_processor!r}. Write "module:Class".'
        if not _is_tuple_of(str, operation.routes) or not all(route.startswith("/") for route in operation.routes):
            yield f"{which} has routes={operation.routes!r}. Give a tuple of paths, each with a slash in front."
    for name, count in Counter(operation.name for operation in operations).items():
        if count > 1:
            yield f"{this} has {count} operations named {name!r}. Give each a name of its own."


def _is_alias(task: PoolingTask, entry_point: EntryPoint, plugin: Plugin) -> bool:
    """Return whether another entry point to the same object has the task's own name."""
    return any(entry.name == task.name and entry.value == entry_point.value for entry in plugin.in_group(TASKS))


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
