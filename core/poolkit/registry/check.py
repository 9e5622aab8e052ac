"""Check tasks and the signatures of hooks against the contract: everything short of importing a processor."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard

from pydantic import BaseModel, PydanticUserError

from poolkit.contract import (
    API_OLDEST,
    API_VERSION,
    TASK_NAME,
    Activation,
    Modality,
    ModalityPrompt,
    Operation,
    Output,
    PoolingIOProcessor,
    PoolingTask,
    StartupHooks,
)
from poolkit.errors import PluginIncompatibleError
from poolkit.registry.discover import TASKS, EntryPoint, Plugin

__all__ = [
    "NAME_RULE",
    "PROCESSOR_HOOKS",
    "STARTUP_HOOKS",
    "accepted",
    "argument_problem",
    "check_api",
    "modality_problems",
    "settings_problems",
    "task_problems",
]

NAME_RULE = "Use lower-case letters, digits and underscores, a letter first."


def _provided(specification: type, *hooks: str) -> dict[str, tuple[str, ...]]:
    return {hook: tuple(inspect.signature(getattr(specification, hook)).parameters)[1:] for hook in hooks}


PROCESSOR_HOOKS = _provided(PoolingIOProcessor, "pre_process", "post_process")
"""The arguments that each hook of a processor provides."""
STARTUP_HOOKS = _provided(StartupHooks, "poolkit_wrap", "poolkit_commands")
"""The arguments that each start-up hook provides."""


def check_api(task: PoolingTask, plugin: Plugin, core: Plugin) -> None:
    """Raise PluginIncompatibleError if a task is for another version of the plugin API: it may look different."""
    if type(task.api) is int and not API_OLDEST <= task.api <= API_VERSION:
        supported = str(API_VERSION) if API_OLDEST == API_VERSION else f"{API_OLDEST} to {API_VERSION}"
        outdated = core if task.api > API_VERSION else plugin
        raise PluginIncompatibleError(
            f"{plugin} needs plugin API {task.api}; {core} supports {supported}. Upgrade {outdated.name}.",
            plugin=plugin.name,
        )


def task_problems(task: PoolingTask, entry_point: EntryPoint, plugin: Plugin) -> Iterator[str]:
    """Yield each way in which a task breaks the contract."""
    subject = f"task {task.name!r}"
    if type(task.api) is not int:
        yield (
            f"{subject} has api={task.api!r}. Give the number of the plugin API it was written for, now {API_VERSION}."
        )
    if task.name != entry_point.name and not _is_alias(task, entry_point, plugin):
        yield f"entry point {entry_point.name!r} points to a task named {task.name!r}. Give them one name."
    for field, choices in (("output", tuple(Output)), ("activation", tuple(Activation))):
        if getattr(task, field) not in choices:
            yield f"{subject} has {field}={getattr(task, field)!r}. Choose one of {', '.join(choices)}."
    yield from settings_problems(task.settings, subject)
    yield from _head_problems(task, subject)
    if _is_tuple_of(Operation, task.operations) and task.operations:
        yield from _operations_problems(task.operations, subject)
    else:
        yield f"the operations of {subject} are not a tuple of Operation. A tuple of one is written (operation,)."


def modality_problems(modality: Modality[ModalityPrompt], entry_point: EntryPoint) -> Iterator[str]:
    """Yield each way in which a modality breaks the contract."""
    from poolkit.operations.modalities import prompt_schema  # here: numpy is not needed to list plugins

    name, prompt = entry_point.name, modality.prompt
    if prompt.modality != name:
        yield f"entry point {name!r} points to a modality named {prompt.modality!r}. Give them one name."
    parameters = getattr(prompt, "__dataclass_params__", None)  # what dataclasses themselves go by
    if parameters is None or not parameters.frozen:
        yield f"the prompts of modality {name!r} ({prompt.__name__}) are no frozen dataclass, and prompts are compared."
        return
    try:
        properties = prompt_schema(prompt).get("properties")
    except PydanticUserError as error:
        reason = error.message.splitlines()[0]
        yield f"pydantic cannot read the prompts of modality {name!r} ({prompt.__name__}): {reason}"
        return
    if not isinstance(properties, Mapping) or name not in properties:
        yield (
            f"the prompts of modality {name!r} ({prompt.__name__}) have no field of that name, by which they are told "
            "from others in JSON. Name one so, or give it that alias."
        )


def settings_problems(settings: object, subject: str) -> Iterator[str]:
    """Yield what is wrong with the settings model of `subject`."""
    if not _is_model(settings):
        yield f"{subject} has settings={settings!r}. Give a pydantic model class."
    elif settings.model_config.get("extra") != "forbid":
        yield (
            f"the settings of {subject} ({settings.__name__}) accept unknown keys, so typing errors would go "
            'unnoticed. Give the model  model_config = ConfigDict(extra="forbid").'
        )


def argument_problem(function: object, subject: str, provided: tuple[str, ...], *, is_method: bool) -> str | None:
    """Return what is wrong with the function of a hook that provides these arguments, or None."""
    listing = ", ".join(provided)
    if not inspect.isfunction(function):
        expected, arguments = ("a method", f"self, {listing}") if is_method else ("a function", listing)
        name = subject.rpartition(".")[-1]
        return f"{subject} is a {type(function).__name__}. Write it as {expected}: def {name}({arguments})."
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return f"{subject} is async; hooks are called from plain threads. Write it with a plain def."
    for parameter in list(inspect.signature(function).parameters.values())[is_method:]:
        is_plain = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        has_default = parameter.default is not parameter.empty
        if parameter.name in provided:
            if not is_plain or has_default:
                return f"{subject} must take {parameter.name!r} as a plain argument: not keyword-only, no default."
        elif not has_default:
            return f"{subject} takes {str(parameter).split(':')[0]!r}; the hook provides ({listing})."
    return None


def accepted(function: Callable[..., object], provided: tuple[str, ...]) -> tuple[int, ...]:
    """Return which of the arguments provided a bound function takes, by position, in its own order."""
    return tuple(provided.index(name) for name in inspect.signature(function).parameters if name in provided)


def _head_problems(task: PoolingTask, task_name: str) -> Iterator[str]:
    """Yield what is wrong with what a task's head is given: no field is ignored."""
    if task.extra is not None and not _is_model(task.extra):
        yield f"{task_name} has extra={task.extra!r}. Give a pydantic model class."
    elif task.extra is not None and not task.extra.model_config.get("frozen"):
        yield (
            f"the extra of {task_name} ({task.extra.__name__}) is not frozen, so prompts cannot be told apart by it. "
            "Give the model  model_config = ConfigDict(frozen=True)."
        )
    if not _is_tuple_of(int, task.taps):
        yield f"{task_name} has taps={task.taps!r}. Give a tuple of layers' numbers. A tuple of one is written (6,)."
    elif task.taps and task.head is None:
        yield f"{task_name} has taps={task.taps!r}, but no head that reads them."
    if not _is_tuple_of(str, task.label_tokens):
        yield (
            f"{task_name} has label_tokens={task.label_tokens!r}. Give a tuple of tokens. A tuple of one is written "
            '("yes",).'
        )
    reads_labels = Output.LABEL_LOGITS in (task.output, *task.or_outputs) and task.head is None
    if reads_labels and not task.label_tokens:
        yield f"{task_name} has output='label_logits', but no label_tokens whose logits these are."
    elif task.label_tokens and not reads_labels:
        yield f"{task_name} has label_tokens={task.label_tokens!r}, which are for output='label_logits' without a head."


def _operations_problems(operations: tuple[Operation, ...], task: str) -> Iterator[str]:
    for operation in operations:
        if not TASK_NAME.fullmatch(str(operation.name)):
            yield f"{task} has an operation named {operation.name!r}. {NAME_RULE}"
        subject = f"operation {operation.name!r} of {task}"
        for field in ("request", "response"):
            if not _is_model(getattr(operation, field)):
                yield f"{subject} has {field}={getattr(operation, field)!r}. Give a pydantic model class."
        if type(operation.max_rounds) is not int or operation.max_rounds < 1:
            yield f"{subject} has max_rounds={operation.max_rounds!r}. Give a number of at least 1."
        unknown = sorted(set(operation.per_prompt) - set(getattr(operation.response, "model_fields", ())))
        if unknown:
            yield f"{subject} has per_prompt={operation.per_prompt!r}. Its response has no field {unknown[0]!r}."
        if str(operation.io_processor).count(":") != 1:
            yield f'{subject} has io_processor={operation.io_processor!r}. Write "module:Class".'
        if not _is_tuple_of(str, operation.routes) or not all(route.startswith("/") for route in operation.routes):
            yield f"{subject} has routes={operation.routes!r}. Give a tuple of paths, each with a slash in front."
    for name, count in Counter(operation.name for operation in operations).items():
        if count > 1:
            yield f"{task} has {count} operations named {name!r}. Give each a name of its own."


def _is_alias(task: PoolingTask, entry_point: EntryPoint, plugin: Plugin) -> bool:
    """Return whether another entry point to the same object has the task's own name."""
    return any(entry.name == task.name and entry.value == entry_point.value for entry in plugin.in_group(TASKS))


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def _is_model(value: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(value, type) and issubclass(value, BaseModel)
