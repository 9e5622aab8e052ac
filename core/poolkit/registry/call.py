"""Call the hooks of one operation through pluggy: each plugin is blamed for its own failures, and timed.

One plugin manager per operation holds the processor and, around it, the wrappers. Registered in place of each plugin's
methods are functions that call these, check the result, blame a failure on the plugin and tell how long it took.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import SimpleNamespace
from typing import Protocol, TypeVar, cast

import pluggy
from pydantic import BaseModel, ValidationError

from poolkit.contract import PROJECT, Operation, PooledOutput, PoolingIOProcessor, Prepared, hookimpl
from poolkit.errors import HookError, RequestError
from poolkit.registry.check import PROCESSOR_HOOKS, accepted
from poolkit.registry.discover import Plugin
from poolkit.registry.hooks import Wrapper
from poolkit.registry.results import check_handed_on, check_prepared, check_response
from poolkit.validation import refused

__all__ = ["HookCalls", "Observe", "Part"]

logger = logging.getLogger(__name__)

PRE, POST = "pre_process", "post_process"
Wrapping = Generator[None, object, object]
ResultT = TypeVar("ResultT")


class Observe(Protocol):
    """Is told of each call of a hook, in the thread of the call."""

    def __call__(self, hook: str, plugin: str, seconds: float) -> None:
        """Take note of one call."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A plugin's part in one operation: the processor, or a wrapper around it.

    Attributes:
        plugin: the plugin to blame.
        subject: its name in messages.
        task: the name of the task.
        operation: the operation.
        observers: are told of each call.
    """

    plugin: Plugin
    subject: str
    task: str
    operation: Operation
    observers: list[Observe]

    def blame(self, error: BaseException, hook: str, *, except_for: BaseException | None = None) -> None:
        """Raise a HookError from an error that is the plugin's fault; return if the error is to be raised as it is.

        The message of a HookError reaches the client, so the cause stays in the log.

        Args:
            error: what the plugin's code raised.
            hook: the hook that it was called for.
            except_for: the failure of what a wrapper surrounds: not its own, if it lets it through.

        Raises:
            HookError: the plugin failed.
            RequestError: pydantic says that a value does not fit the operation's request.
        """
        if isinstance(error, RequestError) or error is except_for or _is_ctrl_c(error):
            return
        if isinstance(error, ValidationError) and error.title == self.operation.request.__name__:
            raise refused(error) from error
        message = f"{self.subject} failed in {hook}."
        logger.error("%s", message, exc_info=error)
        raise HookError(message, plugin=self.plugin.name, task=self.task, hook=hook) from error

    def observe(self, hook: str, seconds: float) -> None:
        """Tell the observers of one call."""
        for observe in self.observers:
            observe(hook, self.plugin.name, seconds)

    def call(self, hook: str, work: Callable[[], ResultT]) -> ResultT:
        """Do some work of the plugin, blamed and timed."""
        started = perf_counter()
        try:
            return work()
        except BaseException as error:
            self.blame(error, hook)
            raise
        finally:
            self.observe(hook, perf_counter() - started)


class HookCalls:
    """The hooks of one operation. Thread safe.

    Args:
        processor: implements the hooks.
        part: its part in the operation.
        wrappers: surround it, outermost first, each with its part.
    """

    def __init__(
        self, processor: PoolingIOProcessor[BaseModel, BaseModel], part: Part, wrappers: Sequence[tuple[Wrapper, Part]]
    ) -> None:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(PoolingIOProcessor)
        manager.register(_registered(processor, part))
        self._part = part
        self._answer = _bind_arguments(POST, processor.post_process)
        for wrapper, wrapper_part in reversed(wrappers):  # the last one that is registered is outermost
            if wrapper.hooks:
                manager.register(_registered_wrapper(wrapper, wrapper_part))
        self._hooks = manager.hook

    def pre_process(self, request: BaseModel) -> Prepared:
        """Return the prompts of a request.

        Raises:
            RequestError: a plugin says that the request is wrong.
            HookError: a plugin failed.
        """
        return cast("Prepared", self._hooks.pre_process(request=request))

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> BaseModel:
        """Return the response.

        Raises:
            RequestError: a plugin says that the request is wrong.
            HookError: a plugin failed.
        """
        return cast("BaseModel", self._hooks.post_process(prepared=prepared, outputs=outputs))

    def advance(self, prepared: Prepared, outputs: Sequence[PooledOutput], *, is_last: bool) -> Prepared | BaseModel:
        """Return the prompts of a further round, or the response: wrappers surround the response alone.

        Raises:
            RequestError: a plugin says that the request is wrong.
            HookError: a plugin failed, or asks for more rounds than its operation declares.
        """
        operation = self._part.operation

        def work() -> Prepared | BaseModel:
            result = self._answer(prepared, outputs)
            if not isinstance(result, Prepared):
                return check_response(result, operation, prompts=len(prepared.prompts))
            if is_last:
                raise TypeError(f"returned prompts for more rounds than max_rounds={operation.max_rounds}")
            return check_prepared(result)

        result = self._part.call(POST, work)
        if isinstance(result, Prepared):
            return result
        surrounded = self._hooks.post_process.call_extra(
            [lambda prepared, outputs: result],  # noqa: ARG005 - pluggy goes by the names
            {"prepared": prepared, "outputs": outputs},
        )
        return cast("BaseModel", surrounded)


def _registered(processor: PoolingIOProcessor[BaseModel, BaseModel], part: Part) -> object:
    """Return what pluggy calls in place of the processor, whose other attributes it would touch."""
    prepare = _bind_arguments(PRE, processor.pre_process)
    answer = _bind_arguments(POST, processor.post_process)

    @hookimpl
    def pre_process(request: BaseModel) -> Prepared:
        return part.call(PRE, lambda: check_prepared(prepare(request)))

    @hookimpl
    def post_process(prepared: Prepared, outputs: Sequence[PooledOutput]) -> BaseModel:
        prompts = len(prepared.prompts)
        return part.call(POST, lambda: check_response(answer(prepared, outputs), part.operation, prompts=prompts))

    if part.operation.max_rounds > 1:
        return SimpleNamespace(pre_process=pre_process)  # `advance` calls the other, round by round
    return SimpleNamespace(pre_process=pre_process, post_process=post_process)


def _registered_wrapper(wrapper: Wrapper, part: Part) -> object:
    """Return what pluggy calls in place of a wrapper."""
    hooks: dict[str, object] = {}
    if PRE in wrapper.hooks:
        before = _bind_arguments(PRE, wrapper.hooks[PRE])

        @hookimpl(wrapper=True)
        def pre_process(request: BaseModel) -> Wrapping:
            return (yield from _surround(PRE, lambda: before(request), _check_prepared_again, part))

        hooks[PRE] = pre_process
    if POST in wrapper.hooks:
        after = _bind_arguments(POST, wrapper.hooks[POST])

        @hookimpl(wrapper=True)
        def post_process(prepared: Prepared, outputs: Sequence[PooledOutput]) -> Wrapping:
            return (yield from _surround(POST, lambda: after(prepared, outputs), _check_response_again, part))

        hooks[POST] = post_process
    return SimpleNamespace(**hooks)


def _surround(
    hook: str, start: Callable[[], object], check: Callable[[object, object, Part], object], part: Part
) -> Wrapping:
    """Run a wrapper up to its yield, hand that on to pluggy, and run the wrapper to its end.

    The time in between, that of what it surrounds, is not the wrapper's.
    """
    started = perf_counter()
    seconds = 0.0
    inner: object = None
    failure: BaseException | None = None
    try:
        wrapping = cast("Wrapping", start())
        _begin(wrapping)
        seconds = perf_counter() - started
        try:
            inner = yield
        except BaseException as error:  # noqa: BLE001 - the wrapper sees it, and may let it through
            failure = error
        started = perf_counter()
        return check(_finish(wrapping, inner, failure), inner, part)
    except BaseException as error:
        part.blame(error, hook, except_for=failure)
        raise
    finally:
        part.observe(hook, seconds + perf_counter() - started)


def _check_prepared_again(result: object, inner: object, part: Part) -> object:  # noqa: ARG001 - as for responses
    return result if _is_passed_on(result, inner) else check_handed_on(check_prepared(result), inner)


def _check_response_again(result: object, inner: object, part: Part) -> object:
    return result if _is_passed_on(result, inner) else check_response(result, part.operation)


def _is_passed_on(result: object, inner: object) -> bool:
    """Return True for the result of what a wrapper surrounds, which is checked already. None is no result."""
    return inner is not None and result is inner


def _begin(wrapping: Wrapping) -> None:
    try:
        yielded = next(wrapping)
    except StopIteration:
        raise TypeError("ended without a yield") from None
    if yielded is not None:
        raise TypeError(f"yielded {type(yielded).__name__}: what it surrounds gets the hook's own arguments")


def _finish(wrapping: Wrapping, result: object, failure: BaseException | None) -> object:
    """Run a wrapper from its yield to its end; return what it returns."""
    try:
        if failure is None:
            wrapping.send(result)
        else:
            wrapping.throw(failure)
    except StopIteration as end:
        return end.value
    wrapping.close()
    raise TypeError("yielded more than once")


def _bind_arguments(hook: str, method: Callable[..., object]) -> Callable[..., object]:
    """Return the method as a function of all of the hook's arguments, of which it may take fewer."""
    places = accepted(method, PROCESSOR_HOOKS[hook])
    return lambda *arguments: method(*(arguments[place] for place in places))


def _is_ctrl_c(error: BaseException) -> bool:
    """Return whether the user interrupts a call of his own; in a worker thread it can only be the plugin's doing."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
