"""One request from its bytes to its answer, whatever the dialect: read, decode, run, encode, or give up in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from poolkit.errors import CancelledRequestError, RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.server.dialects import Call, Decoded, Dialect
from poolkit.server.failures import RefusedError

__all__ = ["Endpoint", "endpoint"]

T = TypeVar("T")

Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(dialect: Dialect, served: ServedModel, *, max_body_bytes: int) -> Endpoint:
    """Return the function that answers a dialect's requests."""

    async def answer(request: Request) -> Response:
        if dialect.operation not in served.operations:
            raise RequestError(_not_offered(dialect, request.url.path, served))
        raw = await _read_body(request, max_body_bytes)
        decoded: Decoded

        def decode() -> BaseModel:
            nonlocal decoded
            call = Call(request.url.path, request.state.request_id, _parse(raw))
            decoded = dialect.decode(call)
            return decoded.request

        work = served.arun(dialect.operation, decode, lambda response: decoded.encode(response))
        content = await _unless_client_leaves(work, request.receive)
        return Response(content, media_type="application/json")

    return answer


def _parse(raw: bytes) -> dict[str, object]:
    """Return the body's JSON object, whatever its Content-Type says: some clients send none."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise RequestError("The body must be a JSON object.")
    return body


async def _read_body(request: Request, max_body_bytes: int) -> bytes:
    """Return the body; stop reading as soon as it is too long."""
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_body_bytes:
            raise RefusedError(
                f"The request body is longer than {max_body_bytes} bytes. Send fewer inputs in one request.",
                status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                code="body_too_large",
            )
        chunks.append(chunk)
    return b"".join(chunks)


async def _unless_client_leaves(work: Coroutine[object, object, T], receive: Receive) -> T:
    """Return what `work` gives; cancel it and raise CancelledRequestError once the client has gone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_client_leaves(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise CancelledRequestError("The client went away.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _not_offered(dialect: Dialect, path: str, served: ServedModel) -> str:
    offering = " or ".join(f"--task {task}" for task in dialect.tasks)
    return (
        f"{path} needs the operation {dialect.operation!r}. This server serves the task {served.task.name!r}, which "
        f"offers: {', '.join(sorted(served.operations))}. Restart it with {offering}, where the model can."
    )
