"""poolkit's own routes: an operation's request as JSON, its response as JSON, nothing added and nothing ignored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from poolkit.contract import Operation
from poolkit.errors import RequestError
from poolkit.server.dialects.codec import Call, Decoded, to_json
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["NativeOperation"]


class NativeOperation:
    """The codec of one operation, for any task: what a plugin gets without writing any."""

    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, operation: Operation, *, paths: tuple[str, ...], task: str) -> None:
        self.paths: tuple[str, ...] = paths
        self.operation = operation.name
        self.tasks: tuple[str, ...] = (task,)
        self.request: type[BaseModel] = operation.request

    def decode(self, call: Call) -> Decoded:
        """Read the operation's request; refuse fields that it does not have, unless its author says otherwise."""
        extra: Literal["forbid"] | None = None if "extra" in self.request.model_config else "forbid"
        request = validate(self.request, call.body, error_type=RequestError, extra=extra)
        return Decoded(request, lambda response: to_json(response.model_dump()))
