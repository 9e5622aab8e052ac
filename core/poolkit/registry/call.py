"""Call one hook of one operation: wrappers around the processor, each blamed for its own failures and timed."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, Protocol, TypeVar, cast

from pydantic import BaseModel, ValidationError

from poolkit.contract import Operation, Prepared
from poolkit.errors import HookError, RequestError
from poolkit.registry.check import PROCESSOR_HOOKS, accepted
from poolkit.registry.discover import Plugin
from poolkit.registry.hooks import Wrapper
from poolkit.registry.results import check_prepared, check_response, expect
from poolkit.validation import refused

__all__ = ["HookCaller", "Observe", "Observers", "PostProcess", "PreProcess"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Arguments = tuple[object, ...]
Wrapping = Generator[Arguments | None, object, object]


class Observe(Protocol):
    """Is told of each call of a hook, in the thread of the call."""

    def __call__(self, hook: str, plugin: str, seconds: float) -> None:
        """Take note of one call."""
        ...


class Observers(list[Observe]):
    """The observers of one operation."""

    def tell(self, hook: str, plugin: str, seconds: float) -> None:
        """Tell each of them of a call."""
        for observe in self:
            observe(hook, plugin, seconds)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    function: Callable[..., object]
    accepted: tuple[int, ...]
    plugin: Plugin
    subject: str

    def call(self, arguments: Arguments) -> object:
        """Call the method with the arguments that it takes."""
        return self.function(*(arguments[position] for position in self.accepted))


class HookCaller(ABC, Generic[ResultT]):
    """One hook of one operation. Thread safe."""

    hook: str

    def __init__(
        self,
        processor: object,
        wrappers: Sequence[Wrapper],
        operation: Operation,
        *,
        task: str,
        plugin: Plugin,
        observers: Observers,
    ) -> None:
        self._task = task
        self._operation = operation
        self._observers = observers
        subject = f"task {task!r} of {plugin}"
        provided = PROCESSOR_HOOKS[self.hook]
        layers = [
            _Layer(
                function,
                accepted(function, provided),
                wrapper.plugin,
                f"{wrapper.plugin}, wrapped around {subject},",
            )
            for wrapper in wrappers
            if (function := wrapper.hooks.get(self.hook)) is not None
        ]
        function = getattr(processor, self.hook)
        self._layers = (*layers, _Layer(function, accepted(function, provided), plugin, subject))

    def call(self, *arguments: object) -> ResultT:
        """Return what the outermost layer returns.

        Raises:
            RequestError: the request is wrong, says a plugin.
            HookError: a plugin failed.
        """
        return self._call(0, arguments)

    @property
    @abstractmethod
    def returns(self) -> type[ResultT]:
        """The type of what each layer returns."""

    @abstractmethod
    def check_arguments(self, arguments: Arguments) -> None:
        """Raise TypeError for what a wrapper must not hand on."""

    @abstractmethod
    def check_result(self, result: ResultT, arguments: Arguments | None) -> None:
        """Raise TypeError for a result that cannot be used. A wrapper is not held to its arguments: they are None."""

    def _call(self, depth: int, arguments: Arguments) -> ResultT:
        layer = self._layers[depth]
        if depth < len(self._layers) - 1:
            return self._surround(depth, arguments)
        with self._blaming(layer):
            result = expect(self.returns, layer.call(arguments))
            self.check_result(result, arguments)
            return result

    def _surround(self, depth: int, arguments: Arguments) -> ResultT:
        layer = self._layers[depth]
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
        self, layer: _Layer, *, but_for: BaseException | None = None, before: float = 0.0, counts: bool = True
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
            if isinstance(error, ValidationError) and error.title == self._operation.request.__name__:
                raise refused(error) from error
            message = f"{layer.subject} failed in {self.hook}."
            logger.exception("%s", message)
            raise HookError(message, plugin=layer.plugin.name, task=self._task, hook=self.hook) from error
        finally:
            if counts or is_failure:
                self._observers.tell(self.hook, layer.plugin.name, before + perf_counter() - started)


class PreProcess(HookCaller[Prepared]):
    """Calls `pre_process`."""

    hook = "pre_process"

    @property
    def returns(self) -> type[Prepared]:
        """The prompts of a request."""
        return Prepared

    def check_arguments(self, arguments: Arguments) -> None:
        """Expect a request."""
        expect(self._operation.request, *arguments)

    def check_result(self, result: Prepared, arguments: Arguments | None) -> None:  # noqa: ARG002 - any request will do
        """Expect prompts that can be run."""
        check_prepared(result)


class PostProcess(HookCaller[BaseModel]):
    """Calls `post_process`."""

    hook = "post_process"

    @property
    def returns(self) -> type[BaseModel]:
        """The response model."""
        return self._operation.response

    def check_arguments(self, arguments: Arguments) -> None:
        """Expect as many outputs as prompts."""
        prepared, outputs = arguments
        expected = len(expect(Prepared, prepared).prompts)
        if not isinstance(outputs, Sequence) or len(outputs) != expected:
            counted = f"{len(outputs)} outputs" if isinstance(outputs, Sized) else type(outputs).__name__
            raise TypeError(f"yielded {counted} for {expected} prompts")

    def check_result(self, result: BaseModel, arguments: Arguments | None) -> None:
        """Expect finite numbers, one item for each prompt."""
        prompts = 0 if arguments is None else len(expect(Prepared, arguments[0]).prompts)
        check_response(result, () if arguments is None else self._operation.per_prompt, prompts)


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
