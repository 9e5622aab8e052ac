"""The request that a hook serves: where it came from and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar
from uuid import uuid4

__all__ = ["RequestScope", "current_request", "in_scope", "request_scope"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestScope:
    """One request, as hooks and wrappers may know it. Poolers never see it, so that no number depends on it.

    Attributes:
        origin: "http" for a request to the server, "offline" for a call of `LLM`.
        request_id: in the log, and in the header `x-request-id`.
        key_name: the name of the API key that the request was sent with; None if it had none, or one without a name.
        headers: those that the operator lists in `plugin_headers`, by lower-case name. Empty offline. Never log their
            values.
    """

    origin: Literal["http", "offline"] = "offline"
    request_id: str = field(default_factory=lambda: uuid4().hex)
    key_name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


_CURRENT: ContextVar[RequestScope] = ContextVar("poolkit_request")


def current_request() -> RequestScope:
    """Return the request that the running hook or wrapper serves.

    It is set in every thread in which a hook or wrapper runs, and nowhere else.

    Raises LookupError outside of a hook.
    """
    return _CURRENT.get()


@contextmanager
def request_scope(scope: RequestScope) -> Iterator[None]:
    """Make `scope` the current request in this thread."""
    token = _CURRENT.set(scope)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def in_scope(scope: RequestScope, function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs with `scope` as the current request, in whichever thread."""

    def scoped(*args: P.args, **kwargs: P.kwargs) -> T:
        with request_scope(scope):
            return function(*args, **kwargs)

    return scoped
