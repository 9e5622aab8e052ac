"""What a dialect is: where it is spoken, what it asks for, how a request is read and an answer written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import numpy as np
import orjson
from pydantic import BaseModel

from poolkit.server.failures import ErrorBody, RefusedError

__all__ = ["Call", "Decoded", "Dialect", "check_model", "to_json"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in: the path it was sent to, its id, and its JSON object."""

    path: str
    request_id: str
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request in the operation's own words, and how its response is written for this client."""

    request: BaseModel
    encode: Callable[[BaseModel], bytes]


class Dialect(Protocol):
    """A codec for one operation. `decode` and what it returns run in worker threads, many at a time.

    Attributes:
        paths: where it is spoken, with POST.
        operation: the name of what it asks for.
        tasks: the standard tasks that offer the operation, for the message when the served one does not.
        request: what the client sends, for the schema in /docs.
        error_body: how it writes a failure.
    """

    paths: tuple[str, ...]
    operation: str
    tasks: tuple[str, ...]
    request: type[BaseModel]
    error_body: ErrorBody

    def decode(self, call: Call) -> Decoded:
        """Return the request, or raise RequestError."""
        ...


def check_model(requested: object, *, served: str) -> None:
    """Raise RefusedError (404) if a request names another model than the served one; naming none is fine."""
    if requested not in (None, "", served):
        raise RefusedError(
            f"The model `{requested}` does not exist. This server serves: `{served}`.",
            status=HTTPStatus.NOT_FOUND,
            code="model_not_found",
            param="model",
        )


def to_json(answer: Mapping[str, object]) -> bytes:
    """Write an answer; numpy arrays become nested lists without a detour through Python objects."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=_to_list)


def _to_list(value: object) -> object:
    """Write what orjson cannot read in place, such as an array with gaps."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
