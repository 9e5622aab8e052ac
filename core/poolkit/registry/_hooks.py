"""One operation with its behaviour: its processor, the wrappers around that, and what their results must look like."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field

from pydantic import BaseModel

from poolkit.contract import (
    BindContext,
    ImagePrompt,
    Operation,
    PooledOutput,
    PoolingIOProcessor,
    PoolingParams,
    Prepared,
    TemplatedText,
    TextPair,
    TokenInputs,
)
from poolkit.errors import PluginInvalidError
from poolkit.registry._discovery import Plugin
from poolkit.registry._finite import find_not_finite
from poolkit.registry._importing import import_object, plugin_code
from poolkit.registry._layers import Arguments, HookCaller, Layer, expect
from poolkit.registry._selection import Enabled
from poolkit.registry._signatures import PROCESSOR_HOOKS, accepted, argument_problem
from poolkit.registry._times import HookTimes, TimesRead
from poolkit.registry._wrapping import Wrapper

__all__ = ["BoundOperation", "HookTiming", "bind_operation"]

logger = logging.getLogger(__name__)

Processor = PoolingIOProcessor[BaseModel, BaseModel]


@dataclass(frozen=True, slots=True)
class HookTiming:
    """How long one plugin's calls of one hook took, without the time of what a wrapper surrounds."""

    plugin: str
    hook: str
    times: TimesRead


@dataclass(frozen=True, slots=True, eq=False)
class BoundOperation:
    """One operation, ready to answer requests. Thread safe, as its processor and wrappers must be.

    Attributes:
        operation: the descriptor.
        task: the name of the task it belongs to.
        plugin: who provides the task.
        processor: what implements the hooks.
        wrappers: what surrounds the processor, outermost first.
    """

    operation: Operation
    task: str
    plugin: Plugin
    processor: Processor
    wrappers: tuple[Wrapper, ...]
    _pre_process: HookCaller[Prepared] = field(repr=False)
    _post_process: HookCaller[BaseModel] = field(repr=False)

    def pre_process(self, request: BaseModel) -> Prepared:
        """Return the prompts of a request.

        Raises:
            RequestError: the request is wrong, says a plugin.
            HookError: a plugin failed.
        """
        return self._pre_process.call(request)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> BaseModel:
        """Return the response.

        Raises:
            RequestError: the request is wrong, says a plugin.
            HookError: a plugin failed.
        """
        return self._post_process.call(prepared, outputs)

    def timings(self) -> Iterator[HookTiming]:
        """Yield how long the hooks took since start-up, by plugin and hook."""
        for caller in (self._pre_process, self._post_process):
            times = {layer.times: layer.plugin.name for layer in caller.layers}
            yield from (HookTiming(plugin, caller.hook, read.read()) for read, plugin in times.items())

    def close(self) -> None:
        """Release what the processor and the wrappers took. A failure is logged: the others must still be closed."""
        try:
            self.processor.close()
        except (Exception, SystemExit):
            logger.exception("Task %r of %s failed in close.", self.task, self.plugin)
        for wrapper in self.wrappers:
            wrapper.close()


@dataclass(frozen=True, slots=True, eq=False)
class _PreProcess(HookCaller[Prepared]):
    def check_arguments(self, arguments: Arguments) -> None:
        expect(self.request, *arguments)

    def check_result(self, result: Prepared, arguments: Arguments | None) -> None:  # noqa: ARG002 - any request will do
        _check_prepared(result)


@dataclass(frozen=True, slots=True, eq=False)
class _PostProcess(HookCaller[BaseModel]):
    per_prompt: tuple[str, ...]

    def check_arguments(self, arguments: Arguments) -> None:
        prepared, outputs = arguments
        expected = len(expect(Prepared, prepared).prompts)
        if not isinstance(outputs, Sequence) or len(outputs) != expected:
            counted = f"{len(outputs)} outputs" if isinstance(outputs, Sized) else type(outputs).__name__
            raise TypeError(f"yielded {counted} for {expected} prompts")

    def check_result(self, result: BaseModel, arguments: Arguments | None) -> None:
        place = find_not_finite(result)
        if place is not None:
            raise ValueError(f"returned a response whose {place.lstrip('.')} is not finite")
        if arguments is None:
            return
        expected = len(expect(Prepared, arguments[0]).prompts)
        for name in self.per_prompt:
            items = getattr(result, name)
            if len(items) != expected:
                raise TypeError(f"returned {len(items)} {name} for {expected} prompts")


def bind_operation(context: BindContext, enabled: Enabled, wrappers: Sequence[Wrapper]) -> BoundOperation:
    """Import and create an operation's processor, and put the wrappers around it.

    Raises:
        PluginLoadError: it raised.
        PluginInvalidError: it does not keep the contract.
    """
    path = context.operation.io_processor
    processor_class = import_object(path, enabled, processor=path)
    if not (isinstance(processor_class, type) and issubclass(processor_class, PoolingIOProcessor)):
        raise PluginInvalidError(
            f"{enabled.plugin}: {path} is not a class derived from PoolingIOProcessor.", plugin=enabled.plugin.name
        )
    for problem in (_signature_problem(processor_class, hook) for hook in PROCESSOR_HOOKS):
        if problem is not None:
            raise PluginInvalidError(f"{enabled.plugin}: {problem}", plugin=enabled.plugin.name)
    with plugin_code(enabled, f"failed to create {processor_class.__name__}", processor=path):
        processor = processor_class(context)
    task, operation = context.task.name, context.operation
    layers = {hook: _layers(hook, processor, wrappers, enabled.plugin, task) for hook in PROCESSOR_HOOKS}
    return BoundOperation(
        operation,
        task,
        enabled.plugin,
        processor,
        tuple(wrappers),
        _PreProcess("pre_process", task, layers["pre_process"], Prepared, operation.request),
        _PostProcess(
            "post_process", task, layers["post_process"], operation.response, operation.request, operation.per_prompt
        ),
    )


def _layers(
    hook: str, processor: Processor, wrappers: Sequence[Wrapper], plugin: Plugin, task: str
) -> tuple[Layer, ...]:
    """Return who takes part in a hook. The wrappers of one plugin share one count of their times."""
    subject = f"task {task!r} of {plugin}"
    times: dict[str, HookTimes] = {}
    layers = [
        Layer(
            function,
            accepted(function, PROCESSOR_HOOKS[hook]),
            wrapper.plugin,
            f"{wrapper.plugin}, wrapped around {subject},",
            times.setdefault(wrapper.plugin.name, HookTimes()),
        )
        for wrapper in wrappers
        if (function := wrapper.hooks.get(hook)) is not None
    ]
    function = getattr(processor, hook)
    own_times = times.get(plugin.name, HookTimes())
    return (*layers, Layer(function, accepted(function, PROCESSOR_HOOKS[hook]), plugin, subject, own_times))


def _signature_problem(processor_class: type, hook: str) -> str | None:
    method = inspect.getattr_static(processor_class, hook)
    provided = PROCESSOR_HOOKS[hook]
    if method is vars(PoolingIOProcessor)[hook]:
        return f"{processor_class.__name__} does not define {hook}(self, {', '.join(provided)})."
    return argument_problem(method, f"{processor_class.__name__}.{hook}", provided, is_method=True)


def _check_prepared(prepared: Prepared) -> None:
    if isinstance(prepared.prompts, str) or not isinstance(prepared.prompts, Sequence):
        raise TypeError(f"Prepared.prompts is a {type(prepared.prompts).__name__}, not a sequence of prompts")
    for index, prompt in enumerate(prepared.prompts):
        if not isinstance(prompt, str | TextPair | TemplatedText | ImagePrompt | TokenInputs | Sequence):
            raise TypeError(f"Prepared.prompts[{index}] is a {type(prompt).__name__}, not a text, a pair or token ids")
    if isinstance(prepared.params, PoolingParams):
        return
    if not isinstance(prepared.params, Sequence):
        raise TypeError(f"Prepared.params is a {type(prepared.params).__name__}, not PoolingParams or a sequence of it")
    if len(prepared.params) != len(prepared.prompts):
        # no ValueError: that would be the caller's fault
        raise TypeError(f"Prepared has {len(prepared.prompts)} prompts and {len(prepared.params)} params")
