"""The outermost layer: every request passes here on its way in, and every answer and failure on its way out."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poolkit.contract import Failure, Reply
from poolkit.errors import ClosedError
from poolkit.server.dispatch import route_path, to_response
from poolkit.server.drain import Drain
from poolkit.server.failures import describe, openai_error
from poolkit.server.keys import Keys
from poolkit.server.metrics import Metrics

__all__ = ["PROBES", "Gate", "failure_response"]

logger = logging.getLogger(__name__)

PROBES = frozenset({"/livez", "/readyz", "/health"})
"""Open to everybody and at any time: what keeps a process running must not need a key."""

ALWAYS_OPEN = PROBES | {"/metrics"}
"""Still answered while the server drains."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Gate:
    """Gives each request its id, checks its key, refuses it while draining, counts it, and words its failure."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        drain: Drain,
        metrics: Metrics,
        error_encoders: Callable[[str], Callable[[Failure], Reply]],
    ) -> None:
        self._app = app
        self._keys = keys
        self._drain = drain
        self._metrics = metrics
        self._error_encoders = error_encoders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        path = route_path(scope)
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        request_id = sent_id if REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with nullcontext() if path in ALWAYS_OPEN else self._drain.request():
            try:
                if path not in PROBES:
                    scope["state"]["key_name"] = self._keys.check(headers.get("authorization"))
                if path not in ALWAYS_OPEN:
                    self._drain.check_open()
                await self._app(scope, receive, send_with_id)
            except (Exception, asyncio.CancelledError) as caught:
                if isinstance(caught, Exception):
                    error = caught
                elif self._drain.is_draining:  # time is up
                    error = ClosedError("The server was shut down before this request was done.")
                else:
                    raise
                self._metrics.count_failure(error)
                if status:
                    raise  # the answer is half out: only closing the connection can say so
                encode_error = scope["state"].get("encode_error") or self._error_encoders(path)
                response = failure_response(error, request_id, encode_error)
                await response(scope, receive, send_with_id)
        seconds = perf_counter() - started
        route = getattr(scope.get("route"), "path", "<none>")
        self._metrics.count_request(route=route, status=status, seconds=seconds)
        logger.debug("%s %s %s -> %d in %.1f ms", request_id, scope["method"], path, status, seconds * 1000)


def failure_response(error: Exception, request_id: str, encode_error: Callable[[Failure], Reply]) -> Response:
    """Return the answer to a request that failed, in the words of its dialect."""
    failure = describe(error, request_id)
    try:
        return to_response(encode_error(failure))
    except Exception:
        logger.exception("The dialect failed to write the failure of request %s.", request_id)
        return to_response(openai_error(failure))
