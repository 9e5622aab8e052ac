"""Calls a processor's two hooks, and says whose fault it is when one fails."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pluggy
from pydantic import BaseModel, ValidationError

from poolkit.contract import (
    PROJECT,
    BindContext,
    Operation,
    PooledOutput,
    PoolingIOProcessor,
    PoolingParams,
    Prepared,
)
from poolkit.errors import HookError, PluginInvalidError, RequestError
from poolkit.registry._discovery import Plugin
from poolkit.registry._importing import import_object, plugin_code
from poolkit.registry._selection import Enabled

__all__ = ["BoundOperation", "bind_operation"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Processor = PoolingIOProcessor[BaseModel, BaseModel]

PROVIDED = {
    name: tuple(inspect.signature(getattr(PoolingIOProcessor, name)).parameters)[1:]  # without self
    for name in ("pre_process", "post_process")
}
"""The arguments that each hook of a processor provides."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundOperation:
    """One operation, ready to answer requests. Thread safe, as its processor must be.

    Attributes:
        operation: the descriptor.
        task: the name of the task it belongs to.
        plugin: who provides the task.
        processor: what implements the hooks.
    """

    operation: Operation
    task: str
    plugin: Plugin
    processor: Processor
    _hooks: pluggy.HookRelay = field(repr=False)

    def pre_process(self, request: BaseModel) -> Prepared:
        """Return the prompts of a request.

        Raises:
            RequestError: the request is wrong, says the plugin.
            HookError: the plugin failed.
        """

        def call() -> Prepared:
            prepared = _expect(Prepared, self._hooks.pre_process(request=request))
            _check_prepared(prepared)
            return prepared

        return self._run("pre_process", call)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> BaseModel:
        """Return the response.

        Raises:
            RequestError: the request is wrong, says the plugin.
            HookError: the plugin failed.
        """
        return self._run(
            "post_process",
            lambda: _expect(self.operation.response, self._hooks.post_process(prepared=prepared, outputs=outputs)),
        )

    def close(self) -> None:
        """Release what the processor took. A failure is logged: it must not keep the others from closing."""
        try:
            self.processor.close()
        except (Exception, SystemExit):
            logger.exception("Task %r of %s failed in close.", self.task, self.plugin)

    def _run(self, hook: str, call: Callable[[], ResultT]) -> ResultT:
        """Pass on what the plugin blames on the request; blame the plugin for everything else.

        The message of a HookError reaches the client, so the cause stays in the log.
        """
        try:
            return call()
        except RequestError:
            raise
        except ValueError as error:
            raise _refused(error, self.task) from error
        except (Exception, SystemExit) as error:
            message = f"task {self.task!r} of {self.plugin} failed in {hook}."
            logger.exception("%s", message)
            raise HookError(message, plugin=self.plugin.name, task=self.task, hook=hook) from error


def bind_operation(context: BindContext, enabled: Enabled) -> BoundOperation:
    """Import and create an operation's processor and connect its hooks.

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
    for problem in (_signature_problem(processor_class, hook) for hook in PROVIDED):
        if problem is not None:
            raise PluginInvalidError(f"{enabled.plugin}: {problem}", plugin=enabled.plugin.name)
    with plugin_code(enabled, f"failed to create {processor_class.__name__}", processor=path):
        processor = processor_class(context)
    hooks = _HookCallers(PROJECT)
    hooks.add_hookspecs(PoolingIOProcessor)
    hooks.register(processor, name=enabled.plugin.name)
    return BoundOperation(context.operation, context.task.name, enabled.plugin, processor, hooks.hook)


class _HookCallers(pluggy.PluginManager):
    """Takes a processor's two methods as they are, marked or not, and looks at none of its other attributes."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        if not isinstance(plugin, PoolingIOProcessor):
            return super().parse_hookimpl_opts(plugin, name)
        if name not in PROVIDED:
            return None
        return pluggy.HookimplOpts(
            wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
        )


def _signature_problem(processor_class: type, hook: str) -> str | None:
    """Return what is wrong with a hook method. pluggy would not pass keyword-only or defaulted arguments at all."""
    provided = PROVIDED[hook]
    this = f"{processor_class.__name__}.{hook}"
    listing = ", ".join(provided)
    method = inspect.getattr_static(processor_class, hook)
    if method is vars(PoolingIOProcessor)[hook]:
        return f"{processor_class.__name__} does not define {hook}(self, {listing})."
    if not inspect.isfunction(method):
        return f"{this} is a {type(method).__name__}. Write it as a method: def {hook}(self, {listing})."
    if inspect.iscoroutinefunction(method):
        return f"{this} is async; hooks run in worker threads. Write it with a plain def."
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        is_plain = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        has_default = parameter.default is not parameter.empty
        if parameter.name in provided:
            if not is_plain or has_default:
                return f"{this} must take {parameter.name!r} as a plain argument: not keyword-only, no default."
        elif not has_default:
            return f"{this} takes {str(parameter).split(':')[0]!r}; the hook provides ({listing})."
    return None


def _expect(expected: type[ResultT], value: object) -> ResultT:
    if not isinstance(value, expected):
        raise TypeError(f"returned {type(value).__name__}, not {expected.__name__}")
    return value


def _check_prepared(prepared: Prepared) -> None:
    if isinstance(prepared.prompts, str) or not isinstance(prepared.prompts, Sequence):
        raise TypeError(f"Prepared.prompts is a {type(prepared.prompts).__name__}, not a sequence of prompts")
    if isinstance(prepared.params, PoolingParams):
        return
    if not isinstance(prepared.params, Sequence):
        raise TypeError(f"Prepared.params is a {type(prepared.params).__name__}, not PoolingParams or a sequence of it")
    if len(prepared.params) != len(prepared.prompts):
        # no ValueError: that would be the caller's fault
        raise TypeError(f"Prepared has {len(prepared.prompts)} prompts and {len(prepared.params)} params")


def _refused(error: ValueError, task: str) -> RequestError:
    if not isinstance(error, ValidationError):
        return RequestError(str(error) or f"Task {task!r} refused the request.")
    failures = [(".".join(map(str, details["loc"])), details["msg"]) for details in error.errors()]
    message = "; ".join(f"{field}: {problem}" if field else problem for field, problem in failures)
    return RequestError(message, param=failures[0][0] or None)
