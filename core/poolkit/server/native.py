"""poolkit's own routes: an operation's request as JSON, its response as JSON, nothing added and nothing ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from poolkit.contract import Call, Dialect, ModalityPrompt, Operation, Reply
from poolkit.errors import RequestError
from poolkit.operations.modalities import request_context
from poolkit.validation import validate

__all__ = ["native_dialect", "read_request", "write_response"]


def native_dialect(operation: Operation, *, paths: tuple[str, ...]) -> Dialect[BaseModel, BaseModel]:
    """Return the dialect of one operation, which a plugin has without writing one."""
    return Dialect(
        paths=paths,
        operation=operation.name,
        request=operation.request,
        response=operation.response,
        encode=_encode,
        never_blocks=True,
    )


def read_request(
    request: type[BaseModel], body: Mapping[str, object], *, modalities: Mapping[str, type[ModalityPrompt]]
) -> BaseModel:
    """Return what a client asks, in which prompts of some modalities may stand.

    Unknown fields are refused, unless the request's own model says otherwise.

    Raises RequestError with a sentence for each wrong field.
    """
    extra: Literal["forbid"] | None = None if "extra" in request.model_config else "forbid"
    return validate(request, body, error_type=RequestError, extra=extra, context=request_context(modalities))


def write_response(response: BaseModel) -> Reply:
    """Return a response as JSON."""
    return Reply.json(response.model_dump())


def _encode(response: BaseModel, request: BaseModel, call: Call) -> Reply:  # noqa: ARG001 - an `encode`
    return write_response(response)
