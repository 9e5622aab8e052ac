"""One request from its bytes to its answer, whatever the dialect: read, choose, decode, run, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson
from pydantic import BaseModel

from poolkit.contract import Call, Reply, RequestScope
from poolkit.errors import RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.server.choice import Models, check_offered, choose_dialect, choose_model
from poolkit.server.routes import Endpoint, HttpRequest
from poolkit.server.spoken_dialect import SpokenDialect

__all__ = ["endpoint"]

PARSED_ON_LOOP_BYTES = 64 * 1024
"""Parsed on the event loop, in about a tenth of a millisecond; a longer body is parsed in a thread."""

READ_ON_LOOP_BYTES = 16 * 1024
"""Decoded and pre-processed on the event loop, where neither dialect nor hooks block."""


def endpoint(spoken: Sequence[SpokenDialect], models: Models, *, plugin_headers: Sequence[str] = ()) -> Endpoint:
    """Return the function that answers the requests at one path.

    Hooks see the headers named in `plugin_headers`, in lower case, and no others.
    """
    others = [one for one in spoken if not one.reads_json]

    async def answer(request: HttpRequest) -> Reply:
        body, readers = await _read_json(request.body, spoken, others)
        name = choose_model(models, request.path_parameters.get("model", body.get("model")))
        headers = request.headers
        call = Call(
            method=request.method,
            path=request.path,
            request_id=request.request_id,
            model=name,
            body=body,
            raw=request.body,
            path_parameters=request.path_parameters,
            query=request.query,
            headers=headers,
        )
        served = models[name]
        chosen = choose_dialect(readers, call, served)
        request.encode_error = chosen.dialect.encode_error
        check_offered(chosen, call, served)
        scope = RequestScope(
            "http",
            call.request_id,
            request.key_name,
            {name: headers[name] for name in plugin_headers if name in headers},
        )
        return await _run(chosen, call, served, scope, request)

    return answer


async def _run(
    spoken: SpokenDialect, call: Call, served: ServedModel, scope: RequestScope, request: HttpRequest
) -> Reply:
    """Answer a request, on the event loop as far as that does not hold it up."""
    asked: BaseModel

    def decode() -> BaseModel:
        nonlocal asked
        asked = spoken.read(call, served)
        return spoken.decode(asked, call, served)

    def encode(response: BaseModel) -> Reply:
        return spoken.encode(response, asked, call, served)

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    is_small = spoken.dialect.never_blocks and len(call.raw) <= READ_ON_LOOP_BYTES
    operation = spoken.dialect.operation
    if operation is None:
        return encode(decode()) if is_small else await asyncio.to_thread(lambda: encode(decode()))
    return await served.arun(operation, decode, encode, scope=scope, is_small=is_small, left=left)


async def _read_json(
    raw: bytes, spoken: Sequence[SpokenDialect], others: Sequence[SpokenDialect]
) -> tuple[Mapping[str, object], Sequence[SpokenDialect]]:
    """Return the body's JSON object and the dialects that can read the body.

    A body that is no JSON is for `others`, the dialects that read none. Raises RequestError where there are no such.
    """
    if len(others) == len(spoken):
        return {}, spoken
    try:
        body = _parse(raw) if len(raw) <= PARSED_ON_LOOP_BYTES else await asyncio.to_thread(_parse, raw)
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
