"""Call the hooks of one operation through pluggy: each plugin is blamed for its own failures, and timed.

One plugin manager per operation holds the processor and, around it, the wrappers. Registered in place of each plugin's
methods are functions that call these, check the result, blame a failure on the plugin and tell how long it took.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

import pluggy
from pydantic import BaseModel, ValidationError

from poolkit.contract import PROJECT, Operation, PooledOutput, PoolingIOProcessor, Prepared, hookimpl
from poolkit.errors import HookError, RequestError
from poolkit.registry.check import PROCESSOR_HOOKS, accepted
from poolkit.registry.discover import Plugin
from poolkit.registry.hooks import Wrapper
from poolkit.registry.results import check_handed_on, check_prepared, check_response
from poolkit.validation import refused

__all__ = ["POST", "Observe", "Part", "begin", "finish", "make_hooks", "with_all_arguments"]

logger = logging.getLogger(__name__)

PRE, POST = "pre_process", "post_process"
Wrapping = Generator[None, object, object]
YieldT = TypeVar("YieldT")
SendT = TypeVar("SendT")
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


def make_hooks(
    processor: PoolingIOProcessor[BaseModel, BaseModel], part: Part, wrappers: Iterable[tuple[Wrapper, Part]]
) -> pluggy.HookRelay:
    """Return the hooks of one operation, safe for threads.

    Args:
        processor: implements the hooks.
        part: its part in the operation.
        wrappers: surround it, outermost first, each with its part.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(PoolingIOProcessor)
    manager.register(_registered(processor, part))
    for wrapper, wrapper_part in reversed(list(wrappers)):  # the last one that is registered is outermost
        if wrapper.hooks:
            manager.register(_registered_wrapper(wrapper, wrapper_part))
    return manager.hook


def with_all_arguments(hook: str, method: Callable[..., object]) -> Callable[..., object]:
    """Return the method as a function of all of the hook's arguments, of which it may take fewer."""
    positions = accepted(method, PROCESSOR_HOOKS[hook])
    return lambda *arguments: method(*(arguments[position] for position in positions))


def begin(wrapping: Generator[YieldT, Any, object]) -> YieldT:
    """Run a wrapper up to its yield; return what it yields."""
    try:
        return next(wrapping)
    except StopIteration:
        raise TypeError("ended without a yield") from None


def finish(wrapping: Generator[object, SendT, ResultT], result: SendT, failure: BaseException | None = None) -> ResultT:
    """Run a wrapper from its yield to its end; return what it returns."""
    try:
        if failure is None:
            wrapping.send(result)
        else:
            wrapping.throw(failure)
    except StopIteration as end:
        return cast("ResultT", end.value)
    wrapping.close()
    raise TypeError("yielded more than once")


def _registered(processor: PoolingIOProcessor[BaseModel, BaseModel], part: Part) -> object:
    """Return what pluggy calls in place of the processor, whose other attributes it would touch."""
    prepare = with_all_arguments(PRE, processor.pre_process)
    answer = with_all_arguments(POST, processor.post_process)

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
        before = with_all_arguments(PRE, wrapper.hooks[PRE])

        @hookimpl(wrapper=True)
        def pre_process(request: BaseModel) -> Wrapping:
            def check(result: object, inner: object) -> object:
                return check_handed_on(check_prepared(result), inner)

            return (yield from _surround(PRE, lambda: before(request), check, part))

        hooks[PRE] = pre_process
    if POST in wrapper.hooks:
        after = with_all_arguments(POST, wrapper.hooks[POST])

        @hookimpl(wrapper=True)
        def post_process(prepared: Prepared, outputs: Sequence[PooledOutput]) -> Wrapping:
            def check(result: object, _: object) -> object:
                return check_response(result, part.operation)

            return (yield from _surround(POST, lambda: after(prepared, outputs), check, part))

        hooks[POST] = post_process
    return SimpleNamespace(**hooks)


def _surround(
    hook: str, start: Callable[[], object], check: Callable[[object, object], object], part: Part
) -> Wrapping:
    """Run a wrapper up to its yield, hand that on to pluggy, and run the wrapper to its end.

    The time in between, that of what it surrounds, is not the wrapper's.
    """
    started = perf_counter()
    seconds = 0.0
    inner: object = None
    failure: BaseException | None = None
    try:
        wrapping = cast("Generator[object, object, object]", start())
        if (yielded := begin(wrapping)) is not None:
            raise TypeError(f"yielded {type(yielded).__name__}: what it surrounds gets the hook's own arguments")
        seconds = perf_counter() - started
        try:
            inner = yield
        except BaseException as error:  # noqa: BLE001 - the wrapper sees it, and may let it through
            failure = error
        started = perf_counter()
        result = finish(wrapping, inner, failure)
        is_passed_on = inner is not None and result is inner  # and checked already; None is no result
        return result if is_passed_on else check(result, inner)
    except BaseException as error:
        part.blame(error, hook, except_for=failure)
        raise
    finally:
        part.observe(hook, seconds + perf_counter() - started)


def _is_ctrl_c(error: BaseException) -> bool:
    """Return whether the user interrupts a call of his own; in a worker thread it can only be the plugin's doing."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
