"""Checks that failures are reported as such, and that unusual outputs of the model are no failure."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from poolkit.contract import Batch, PooledOutput, States
from poolkit.errors import OverloadedError, PoolkitError, RequestError
from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.checks.cases import cases
from poolkit.testing.checks.check import check
from poolkit.testing.checks.plugin import PluginUnderTest, format_error
from poolkit.testing.fake_engine import FakeBackbone

__all__ = ["engine_failures_are_told", "failures_are_told", "zeros_are_answered"]


@check(since="0.1", needs=(examples_are_answered,))
def engine_failures_are_told(plugin: PluginUnderTest) -> Iterator[str]:
    """A failure of the model fails the request, and is not blamed on the caller."""
    calls = 0

    class FailingBackbone(FakeBackbone):
        def __call__(self, batch: Batch) -> States[NDArray[np.float32]]:  # noqa: ARG002
            nonlocal calls
            calls += 1
            raise RuntimeError("the conformance kit lets the model fail")

    for case in cases(plugin, FailingBackbone):
        calls = 0
        answer = case.try_to_ask(case.body)
        if calls and (told := _swallowed(answer)):
            yield f"{case.where}: the model fails, and {told}"


@check(since="0.1", needs=(examples_are_answered,))
def failures_are_told(plugin: PluginUnderTest) -> Iterator[str]:
    """An unexpected error fails the request: no hook catches every exception and goes on."""
    for case in cases(plugin):
        operation = case.served.operations[case.operation.name]
        reads: list[str] = []
        request = _unreadable(case.operation.request, case.decode(case.body), reads)
        answer = _result(partial(operation.pre_process, request))
        if reads and (told := _swallowed(answer)):
            yield f"{case.where}: reading {reads[0]} of the request fails in pre_process, and {told}"
        reads.clear()
        prepared = operation.pre_process(case.decode(case.body))
        outputs = [_UnreadableOutput(reads) for _ in prepared.prompts]
        answer = _result(partial(operation.post_process, prepared, outputs))
        if reads and (told := _swallowed(answer)):
            yield f"{case.where}: reading {reads[0]} of an output fails in post_process, and {told}"


@check(since="0.1", needs=(examples_are_answered,))
def zeros_are_answered(plugin: PluginUnderTest) -> Iterator[str]:
    """Outputs that are zero are answered too, with numbers that are finite."""

    def zeros(outputs: Sequence[PooledOutput]) -> Sequence[PooledOutput]:
        return [
            replace(
                output,
                data=np.zeros_like(output.data),
                parts={name: np.zeros_like(part) for name, part in output.parts.items()},
            )
            for output in outputs
        ]

    for case in cases(plugin, outputs=zeros):
        answer = case.try_to_ask(case.body)
        if isinstance(answer, Exception):
            yield f"{case.where}, where all outputs are zero: {format_error(answer)}"


class _UnreadableError(Exception):
    """Raised where a hook reads what it was given."""


class _UnreadableOutput(PooledOutput):
    """An output that cannot be read.

    Args:
        reads: gets the names of the fields that are read.
    """

    def __init__(self, reads: list[str]) -> None:
        object.__setattr__(self, "_reads", reads)

    def __getattribute__(self, name: str) -> object:
        if name in PooledOutput.__dataclass_fields__:
            object.__getattribute__(self, "_reads").append(name)
            raise _UnreadableError(f"the conformance kit lets {name!r} fail")
        return object.__getattribute__(self, name)


def _unreadable(kind: type[BaseModel], request: BaseModel, reads: list[str]) -> BaseModel:
    """Return a request whose fields cannot be read."""

    def read(self: BaseModel, name: str) -> object:
        if name in kind.model_fields:
            reads.append(name)
            raise _UnreadableError(f"the conformance kit lets {name!r} fail")
        return object.__getattribute__(self, name)

    members = {"__getattribute__": read, "__module__": kind.__module__}
    unreadable = types.new_class(kind.__name__, (kind,), exec_body=lambda namespace: namespace.update(members))
    return cast("type[BaseModel]", unreadable).model_construct(**request.__dict__)


def _result(call: Callable[[], object]) -> object:
    try:
        return call()
    except OverloadedError:
        raise
    except PoolkitError as error:
        return error


def _swallowed(answer: object) -> str | None:
    """Say what became of a failure, if it was not told as one."""
    if isinstance(answer, RequestError):
        return f"the caller is blamed: {format_error(answer)}"
    if isinstance(answer, Exception):
        return None
    return "the request is answered as if it had not. Catch the exceptions that you expect alone."
