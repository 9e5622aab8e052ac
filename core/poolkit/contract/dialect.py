"""Dialects, as data: how one kind of client asks for an operation over HTTP, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from poolkit.contract.model_info import ModelInfo
from poolkit.contract.task import PoolingTask

__all__ = ["Call", "Dialect", "Failure", "NoBody", "Reply", "Served"]

RequestT = TypeVar("RequestT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, as it came in.

    Attributes:
        method: "POST", "GET", …
        path: as it was sent, from the app's root on.
        request_id: the client's own, or one that the server made. It is in the log, and in header `x-request-id`.
        model: the name under which the model is served: the one that the client sent, where it sent any.
        body: the JSON object; empty where none was read.
        raw: the bytes of the body.
        path_parameters: those that the dialect's path has in braces.
        query: parameters of the URL; the last of a name counts.
        headers: by lower-case name.
    """

    method: str
    path: str
    request_id: str
    model: str
    body: Mapping[str, object] = field(default_factory=dict)
    raw: bytes = field(default=b"", repr=False)
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response.

    Attributes:
        body: the bytes that are sent.
        status: the HTTP status.
        headers: by name; `content-type` is application/json unless it is given.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Return a reply in JSON; numpy arrays become nested lists without a detour through Python objects.

        Numbers as keys become strings, as pydantic writes them.
        """
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        return cls(orjson.dumps(content, option=options, default=_to_list), status, headers or {})


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request, before a dialect writes it.

    Attributes:
        status: the HTTP status.
        message: for people.
        kind: the family of errors, for programs: "invalid_request_error", "overloaded_error", …
        code: the error itself, for programs: "model_not_found", "body_too_large", …
        param: the field that is to blame, if one is.
        headers: to send beside the usual ones.
        request_id: as in `Call`.
    """

    status: int
    message: str
    kind: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


class Served(Protocol):
    """A served model, as dialects see it."""

    @property
    def name(self) -> str:
        """The model as the operator named it."""
        ...

    @property
    def info(self) -> ModelInfo:
        """The model, as its files describe it."""
        ...

    @property
    def task(self) -> PoolingTask:
        """The task it serves."""
        ...


class NoBody(BaseModel):
    """The request of a dialect that reads no JSON: its body, if any, is `Call.raw`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect(Generic[RequestT, ResponseT]):
    """The way in which one kind of client asks for one operation and is answered.

    Several dialects may share a path. The first that matches and whose operation the served task offers reads the
    request: core's with `matches`, then those of plugins in the order in which these were enabled, then core's without.

    What the functions raise is answered as it is from hooks: `RequestError` is the client's fault, anything else the
    dialect's own. `decode` and `encode` run in worker threads, many at a time, unless the dialect never blocks.
    `matches` runs on the event loop, for every request of its path: it looks at keys and headers, and computes nothing.

    Attributes:
        paths: where it is spoken. `{name}` is a parameter; one named `model` names the served model, as the field
            `model` of the body does.
        operation: the name of what is asked. None needs no model: `encode` is given what `decode` returns.
        request: what the client sends, as a pydantic model; it validates the body and is shown in /docs. Unknown fields
            are refused unless its `model_config` says otherwise. `NoBody` where no JSON is read.
        response: what `encode` can write. A task that answers the operation with another model is not asked.
        encode: writes the response, given the client's request and the call.
        decode: returns the operation's request, given the client's. None where the client's request is one.
        matches: tells, from the call, whether the request is meant for this dialect. None where every one is.
        encode_error: writes a failure. None writes OpenAI's envelope.
        methods: the HTTP methods.
        never_blocks: True if `decode` and `encode` only compute, and little: they then run on the event loop for small
            requests.
    """

    paths: tuple[str, ...]
    operation: str | None
    request: type[RequestT]
    response: type[ResponseT]
    encode: Callable[[ResponseT, RequestT, Call], Reply]
    decode: Callable[[RequestT, Call, Served], BaseModel] | None = None
    matches: Callable[[Call, Served], bool] | None = None
    encode_error: Callable[[Failure], Reply] | None = None
    methods: tuple[str, ...] = ("POST",)
    never_blocks: bool = False

    def __post_init__(self) -> None:
        """Refuse what could never be served."""
        if not self.paths or not all(path.startswith("/") for path in self.paths):
            raise ValueError(f"Dialect.paths is {self.paths!r}; each path must begin with '/', and there must be one.")
        if not self.methods or not all(method.isupper() for method in self.methods):
            raise ValueError(f"Dialect.methods is {self.methods!r}; name HTTP methods in capitals, such as 'POST'.")
        if self.operation is None and self.decode is None:
            raise ValueError("Dialect.decode is missing: without an operation it makes the response.")


def _to_list(value: object) -> object:
    """Return an array that orjson cannot read in place, such as one with gaps, as nested lists."""
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return to_list()
