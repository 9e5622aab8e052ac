"""Calls one hook of one operation: wrappers around wrappers around the processor, each blamed for its own failures.

pluggy marks and describes the hooks. The call is made here, because a wrapper must be able to give what it surrounds
other prompts and outputs than those that went through the model, and a failure must be told by whose it is.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError

from poolkit.errors import HookError, RequestError
from poolkit.registry._discovery import Plugin
from poolkit.registry._times import HookTimes
from poolkit.validation import refused

__all__ = ["HookCaller", "Layer", "expect"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Arguments = tuple[object, ...]
Wrapping = Generator[Arguments | None, object, object]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What the processor or one wrapper does in a hook.

    Attributes:
        function: the bound method; a wrapper's is a generator.
        accepted: which of the hook's arguments it takes, by position.
        plugin: whose it is.
        subject: how messages call it.
        times: where its calls are counted, without the time of what it surrounds.
    """

    function: Callable[..., object]
    accepted: tuple[int, ...]
    plugin: Plugin
    subject: str
    times: HookTimes

    def call(self, arguments: Arguments) -> object:
        """Call the method with the arguments that it takes."""
        return self.function(*(arguments[position] for position in self.accepted))


@dataclass(frozen=True, slots=True, eq=False)
class HookCaller(ABC, Generic[ResultT]):
    """One hook of one operation. Thread safe.

    Attributes:
        hook: its name.
        task: the task's name.
        layers: the wrappers, outermost first, and the processor at the end.
        returns: what each layer must return.
        request: what pydantic says of this model's values is the caller's fault.
    """

    hook: str
    task: str
    layers: tuple[Layer, ...]
    returns: type[ResultT]
    request: type[BaseModel]

    def call(self, *arguments: object) -> ResultT:
        """Return what the outermost layer returns.

        Raises:
            RequestError: the request is wrong, says a plugin.
            HookError: a plugin failed.
        """
        return self._call(0, arguments)

    @abstractmethod
    def check_arguments(self, arguments: Arguments) -> None:
        """Raise TypeError for what a wrapper must not hand on."""

    @abstractmethod
    def check_result(self, result: ResultT, arguments: Arguments | None) -> None:
        """Raise TypeError for a result that cannot be used. A wrapper is not held to its arguments: they are None."""

    def _call(self, depth: int, arguments: Arguments) -> ResultT:
        layer = self.layers[depth]
        if depth < len(self.layers) - 1:
            return self._surround(depth, arguments)
        with self._blaming(layer):
            result = expect(self.returns, layer.call(arguments))
            self.check_result(result, arguments)
            return result

    def _surround(self, depth: int, arguments: Arguments) -> ResultT:
        layer = self.layers[depth]
        started = perf_counter()
        with self._blaming(layer, counts=False):
            wrapping = cast("Wrapping", layer.call(arguments))
            arguments = self._begin(wrapping, arguments)
        own_seconds = perf_counter() - started
        result: ResultT | None = None
        failure: BaseException | None = None
        try:
            result = self._call(depth + 1, arguments)
        except (RequestError, HookError) as error:
            failure = error
        with self._blaming(layer, but_for=failure, before=own_seconds):
            result = expect(self.returns, _finish(wrapping, result, failure))
            self.check_result(result, None)
            return result

    def _begin(self, wrapping: Wrapping, arguments: Arguments) -> Arguments:
        """Run a wrapper up to its yield; return the arguments for what it surrounds."""
        try:
            handed_on = next(wrapping)
        except StopIteration:
            raise TypeError("ended without a yield") from None
        if handed_on is None:
            return arguments
        if not isinstance(handed_on, tuple):
            raise TypeError(f"yielded {type(handed_on).__name__}, not a tuple of the hook's {len(arguments)} arguments")
        if len(handed_on) != len(arguments):
            raise TypeError(f"yielded {len(handed_on)} arguments, not the hook's {len(arguments)}")
        self.check_arguments(handed_on)
        return handed_on

    @contextmanager
    def _blaming(
        self, layer: Layer, *, but_for: BaseException | None = None, before: float = 0.0, counts: bool = True
    ) -> Iterator[None]:
        """Pass on what the plugin blames on the request; blame the plugin for everything else that the block raises.

        The message of a HookError reaches the client, so the cause stays in the log. A failure counts its time too.

        Args:
            layer: whose code the block runs.
            but_for: the failure of what the layer surrounds, which is not its own if it lets it through.
            before: seconds that the layer took before the block.
            counts: whether the layer's part ends with the block.
        """
        started = perf_counter()
        is_failure = True
        try:
            yield
            is_failure = False
        except BaseException as error:
            if isinstance(error, RequestError) or error is but_for or _is_ctrl_c(error):
                raise
            if isinstance(error, ValidationError) and error.title == self.request.__name__:
                raise refused(error) from error
            message = f"{layer.subject} failed in {self.hook}."
            logger.exception("%s", message)
            raise HookError(message, plugin=layer.plugin.name, task=self.task, hook=self.hook) from error
        finally:
            if counts or is_failure:
                layer.times.add(before + perf_counter() - started)


def expect(expected: type[ResultT], value: object) -> ResultT:
    """Return the value, or raise TypeError if it is of another type."""
    if not isinstance(value, expected):
        raise TypeError(f"returned {type(value).__name__}, not {expected.__name__}")
    return value


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


def _is_ctrl_c(error: BaseException) -> bool:
    """Return whether the user interrupts a call of his own; in a worker thread it can only be the plugin's doing."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
