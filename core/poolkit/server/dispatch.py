"""One request from its bytes to its answer, whatever the dialect: read, choose, decode, run, encode, or give up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from poolkit.contract import Call, Reply, RequestScope
from poolkit.errors import CancelledRequestError, RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.server.choice import Models, check_offered, choose_dialect, choose_model
from poolkit.server.failures import RefusedError
from poolkit.server.spoken_dialect import SpokenDialect

__all__ = ["Endpoint", "endpoint", "route_path", "to_response"]

T = TypeVar("T")

Endpoint = Callable[[Request], Awaitable[Response]]

SMALL_BODY_BYTES = 64 * 1024
"""Parsed on the event loop, in about a tenth of a millisecond; a longer body is parsed in a thread."""


def endpoint(
    spoken: Sequence[SpokenDialect], models: Models, *, max_body_bytes: int, plugin_headers: Sequence[str] = ()
) -> Endpoint:
    """Return the function that answers the requests at one path.

    Hooks see the headers named in `plugin_headers`, in lower case, and no others.
    """

    async def answer(request: Request) -> Response:
        raw = await _read_body(request, max_body_bytes)
        body, readers = await _read_json(raw, spoken)
        name = choose_model(models, request.path_params.get("model", body.get("model")))
        call = Call(
            method=request.method,
            path=route_path(request.scope),
            request_id=request.state.request_id,
            model=name,
            body=body,
            raw=raw,
            path_parameters=request.path_params,
            query=dict(request.query_params),
            headers=dict(request.headers),
        )
        served = models[name]
        chosen = choose_dialect(readers, call, served)
        request.state.encode_error = chosen.dialect.encode_error
        check_offered(chosen, call, served)
        scope = RequestScope(
            "http",
            call.request_id,
            getattr(request.state, "key_name", None),
            {name: call.headers[name] for name in plugin_headers if name in call.headers},
        )
        return to_response(await _unless_client_leaves(_run(chosen, call, served, scope), request.receive))

    return answer


def to_response(reply: Reply) -> Response:
    """Return a reply as the framework's response."""
    headers = {"content-type": "application/json", **{name.lower(): value for name, value in reply.headers.items()}}
    return Response(reply.body, reply.status, headers)


def route_path(scope: Scope) -> str:
    """Return the path of a request from the app's own root on: the app may be mounted in another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


async def _run(spoken: SpokenDialect, call: Call, served: ServedModel, scope: RequestScope) -> Reply:
    """Answer a request in worker threads."""
    asked: BaseModel

    def decode() -> BaseModel:
        nonlocal asked
        asked = spoken.read(call, served)
        return spoken.decode(asked, call, served)

    def encode(response: BaseModel) -> Reply:
        return spoken.encode(response, asked, call, served)

    operation = spoken.dialect.operation
    if operation is None:
        return await asyncio.to_thread(lambda: encode(decode()))
    return await served.arun(operation, decode, encode, scope=scope)


async def _read_json(
    raw: bytes, spoken: Sequence[SpokenDialect]
) -> tuple[Mapping[str, object], Sequence[SpokenDialect]]:
    """Return the body's JSON object and the dialects that can read the body.

    A body that is no JSON is for the dialects that read none. Raises RequestError where there are no such.
    """
    others = [one for one in spoken if not one.reads_json]
    if len(others) == len(spoken):
        return {}, spoken
    try:
        body = _parse(raw) if len(raw) <= SMALL_BODY_BYTES else await asyncio.to_thread(_parse, raw)
    except RequestError:
        if not others:
            raise
        return {}, others
    return body, spoken


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
