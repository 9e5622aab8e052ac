"""Step 5: give a task its behavior for one model: its settings, and each operation's processor and wrappers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

import pluggy
from pydantic import BaseModel

from poolkit.contract import (
    BindContext,
    ModelInfo,
    Operation,
    PooledOutput,
    PoolingIOProcessor,
    PoolingTask,
    Prepared,
    PromptEncoder,
)
from poolkit.errors import PluginError, PoolkitError
from poolkit.registry.call import POST, Observe, Part, make_hooks, with_all_arguments
from poolkit.registry.check import PROCESSOR_HOOKS, argument_problem
from poolkit.registry.discover import Plugin
from poolkit.registry.hooks import Wrapper
from poolkit.registry.importing import collected, import_object, plugin_code, raise_grouped
from poolkit.registry.load import Loaded
from poolkit.registry.results import check_prepared, check_response
from poolkit.registry.run import RunWrapper
from poolkit.registry.select import Enabled

__all__ = ["BoundOperation", "BoundTask", "bind"]

logger = logging.getLogger(__name__)

Processor = PoolingIOProcessor[BaseModel, BaseModel]


@dataclass(frozen=True, slots=True, eq=False)
class BoundOperation:
    """One operation, ready to answer requests. Thread safe, as its processor and wrappers must be.

    Attributes:
        operation: the descriptor.
        task: the name of the task it belongs to.
        plugin: the plugin that provides the task.
        processor: implements the hooks.
        wrappers: surround the processor, outermost first.
        run_wrappers: surround the model, outermost first.
        never_blocks: True if processor and wrappers promise that none of them blocks.
    """

    operation: Operation
    task: str
    plugin: Plugin
    processor: Processor
    wrappers: tuple[Wrapper, ...]
    run_wrappers: tuple[RunWrapper, ...]
    never_blocks: bool
    _part: Part = field(repr=False)
    _hooks: pluggy.HookRelay = field(repr=False)

    def pre_process(self, request: BaseModel) -> Prepared:
        """Return the prompts of a request.

        Raises:
            RequestError: a plugin says that the request is wrong.
            HookError: a plugin failed.
        """
        return cast("Prepared", self._hooks.pre_process(request=request))

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> BaseModel:
        """Return the response, of an operation that has no further rounds. Raises as `pre_process` does."""
        return cast("BaseModel", self._hooks.post_process(prepared=prepared, outputs=outputs))

    def advance(self, prepared: Prepared, outputs: Sequence[PooledOutput], *, is_last: bool) -> Prepared | BaseModel:
        """Return the prompts of a further round, or the response: wrappers surround the response alone.

        Raises as `pre_process` does, and HookError if a plugin asks for more rounds than its operation declares.
        """
        if self.operation.max_rounds == 1:
            return self.post_process(prepared, outputs)

        def work() -> Prepared | BaseModel:
            result = with_all_arguments(POST, self.processor.post_process)(prepared, outputs)
            if not isinstance(result, Prepared):
                return check_response(result, self.operation, prompts=len(prepared.prompts))
            if is_last:
                raise TypeError(f"returned prompts for more rounds than max_rounds={self.operation.max_rounds}")
            return check_prepared(result)

        result = self._part.call(POST, work)
        if isinstance(result, Prepared):
            return result
        surrounded = self._hooks.post_process.call_extra(
            [lambda prepared, outputs: result],  # noqa: ARG005 - pluggy goes by the names
            {"prepared": prepared, "outputs": outputs},
        )
        return cast("BaseModel", surrounded)

    def observe(self, observe: Observe) -> None:
        """Call `observe(hook, plugin, seconds)` from now on after each call of a hook, in the thread of the call.

        The seconds of a wrapper are without those of what it surrounds.
        """
        self._part.observers.append(observe)

    def close(self) -> None:
        """Close the processor and the wrappers. A failure is logged: the others must still be closed."""
        try:
            self.processor.close()
        except (Exception, SystemExit):
            logger.exception("Task %r of %s failed in close.", self.task, self.plugin)
        for wrapper in self.wrappers:
            wrapper.close()


@dataclass(frozen=True, slots=True, eq=False)
class BoundTask:
    """A task, ready to answer requests for one model.

    Attributes:
        task: the descriptor.
        plugin: the plugin that provides it.
        settings: its validated settings.
        operations: by name, in the descriptor's order.
    """

    task: PoolingTask
    plugin: Plugin
    settings: BaseModel
    operations: Mapping[str, BoundOperation]

    def close(self) -> None:
        """Close the processors and wrappers."""
        for operation in self.operations.values():
            operation.close()


def bind(loaded: Loaded, task: PoolingTask, model: ModelInfo, encoder: PromptEncoder) -> BoundTask:
    """Import the processors of an enabled task and create them for one model, with the enabled plugins' wrappers.

    On failure all of them are closed. A plugin that only `"*"` enabled and that fails to wrap is left out with a
    warning.

    Raises:
        UnknownTaskError: the task is none of the enabled ones.
        PluginError: a setting is wrong, or a processor cannot be imported or created, or breaks the contract.
        ConfigError: a hook module refuses a setting of the operator's that it serves.
        StartupError: several of these at once.
    """
    found = loaded.find(task)
    settings = loaded.read_settings(found.plugin, task.settings)
    operations: dict[str, BoundOperation] = {}
    errors: list[PoolkitError] = []
    for operation in task.operations:
        context = BindContext(task, operation, settings, model, encoder)
        wrappers = _wrap(loaded, context, errors)
        with collected(errors):
            operations[operation.name] = _bind_operation(context, found.enabled, wrappers)
        if operation.name not in operations:
            for wrapper in wrappers:
                wrapper.close()
    bound = BoundTask(task, found.plugin, settings, MappingProxyType(operations))
    if errors:
        bound.close()
    raise_grouped(errors)
    return bound


def _wrap(loaded: Loaded, context: BindContext, errors: list[PoolkitError]) -> list[Wrapper]:
    """Return the wrappers of one operation, outermost first; add to `errors` what must not be left out."""
    wrappers: list[Wrapper] = []
    for module in loaded.hooks:
        try:
            wrappers += module.wrap(context, loaded.read_settings(module.plugin, module.settings))
        except PoolkitError as error:
            if module.enabled.must_load or not isinstance(error, PluginError):
                errors.append(error)
            else:
                logger.warning("%s is left out of task %r: %s", module.plugin, context.task.name, error, exc_info=error)
    return wrappers


def _bind_operation(context: BindContext, enabled: Enabled, wrappers: Sequence[Wrapper]) -> BoundOperation:
    """Import and create an operation's processor, and put the wrappers around it.

    Raises:
        PluginLoadError: it raised.
        PluginInvalidError: it breaks the contract.
    """
    path = context.operation.io_processor
    processor_class = import_object(path, enabled, processor=path)
    if not (isinstance(processor_class, type) and issubclass(processor_class, PoolingIOProcessor)):
        raise enabled.plugin.invalid(f"{path} is not a class derived from PoolingIOProcessor.")
    for problem in (_signature_problem(processor_class, hook) for hook in PROCESSOR_HOOKS):
        if problem is not None:
            raise enabled.plugin.invalid(problem)
    with plugin_code(enabled, f"failed to create {processor_class.__name__}", processor=path):
        processor = processor_class(context)
    plugin, task, operation = enabled.plugin, context.task.name, context.operation
    subject = f"task {task!r} of {plugin}"
    part = Part(plugin, subject, task, operation, observers=[])
    surrounding = [
        (wrapper, replace(part, plugin=wrapper.plugin, subject=f"{wrapper.plugin}, wrapped around {subject},"))
        for wrapper in wrappers
    ]
    return BoundOperation(
        operation=operation,
        task=task,
        plugin=plugin,
        processor=processor,
        wrappers=tuple(wrappers),
        run_wrappers=tuple(
            RunWrapper(wrapper.run, wrapper.takes_long_prompts, part) for wrapper, part in surrounding if wrapper.run
        ),
        never_blocks=_never_blocks(processor) and all(wrapper.never_blocks for wrapper in wrappers),
        _part=part,
        _hooks=make_hooks(processor, part, surrounding),
    )


def _never_blocks(processor: Processor) -> bool:
    """Return whether the processor's own class promises it: what derives from one that does may well block."""
    return vars(type(processor)).get("never_blocks", False) is True


def _signature_problem(processor_class: type, hook: str) -> str | None:
    method = inspect.getattr_static(processor_class, hook)
    provided = PROCESSOR_HOOKS[hook]
    if method is vars(PoolingIOProcessor)[hook]:
        return f"{processor_class.__name__} does not define {hook}(self, {', '.join(provided)})."
    return argument_problem(method, f"{processor_class.__name__}.{hook}", provided, is_method=True)
