"""The ASGI app: every request passes here on its way in, and every answer and failure on its way out."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from itertools import count
from os import urandom
from time import perf_counter

from poolkit.contract import Reply
from poolkit.errors import CancelledRequestError, ClosedError
from poolkit.server.drain import Drain
from poolkit.server.failures import RefusedError, describe, openai_error
from poolkit.server.keys import Keys
from poolkit.server.metrics import Metrics
from poolkit.server.routes import HttpRequest, Message, Receive, Route, Routes, Send

__all__ = ["PROBES", "App"]

logger = logging.getLogger(__name__)

PROBES = frozenset({"/livez", "/readyz", "/health"})
"""Open to everybody and at any time: what keeps a process running must not need a key."""

ALWAYS_OPEN = PROBES | {"/metrics"}
"""Still answered while the server drains."""

SLOWEST_BODY_BYTES_PER_S = 16 * 1024
"""The rate at which a body earns time beyond the time limit: a large one may take longer, one that drips may not."""

JSON = (b"content-type", b"application/json")


class App:
    """An ASGI app that gives each request its id, checks its key, refuses it while draining, counts it, answers it.

    Args:
        routes: answer the requests.
        keys: open the app.
        drain: shuts it down.
        metrics: count.
        max_body_bytes: longest request body.
        body_timeout_s: the time in which a body must be there.

    Attributes:
        metrics: as given.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        keys: Keys,
        drain: Drain,
        metrics: Metrics,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._routes = routes
        self._keys = keys
        self._drain = drain
        self.metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._id_start = urandom(8).hex()
        self._numbers = count()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _answer_other(scope["type"], receive, send)
            return
        started = perf_counter()
        request = HttpRequest(scope, receive, new_id=self._new_id)
        route, request.path_parameters = self._routes.find(request.path)
        is_counted = False
        try:
            try:
                self._admit(request)
                if route is None:
                    raise self._routes.missing(request.path)
                route.check_method(request)
                if route.reads_body:
                    request.body = await self._read_body(receive)
                    self._drain.check_open()
                    self._drain.enter()
                    is_counted = True
                reply = await route.endpoint(request)
            except Exception as error:  # noqa: BLE001 - every failure has its answer
                reply = self._fail(error, request, route)
            except asyncio.CancelledError:
                if not self._drain.is_draining:
                    raise
                reply = self._fail(
                    ClosedError("The server was shut down before this request was done."), request, route
                )
            await _send(reply, request.request_id, send)
        finally:
            if is_counted:
                self._drain.leave()
        seconds = perf_counter() - started
        self.metrics.count_request(
            route=route.path if route is not None else "<none>", status=reply.status, seconds=seconds
        )
        logger.debug(
            "%s %s %s -> %d in %.1f ms", request.request_id, request.method, request.path, reply.status, seconds * 1000
        )

    def _new_id(self) -> str:
        """Return an id that no other request has: random bits for each would let go of the interpreter's lock."""
        return f"{self._id_start}{next(self._numbers):016x}"

    def _admit(self, request: HttpRequest) -> None:
        if request.path not in PROBES:
            request.key_name = self._keys.check(request.headers.get("authorization"))
        if request.path not in ALWAYS_OPEN:
            self._drain.check_open()

    def _fail(self, error: Exception, request: HttpRequest, route: Route | None) -> Reply:
        """Return the answer to a request that failed, in the words of its dialect."""
        self.metrics.count_failure(error)
        failure = describe(error, request.request_id)
        encode_error = request.encode_error or (route.encode_error if route is not None else openai_error)
        try:
            return encode_error(failure)
        except Exception:
            logger.exception("The dialect failed to write the failure of request %s.", request.request_id)
            return openai_error(failure)

    async def _read_body(self, receive: Receive) -> bytes:
        """Return the body; stop reading as soon as it is too long, or too slow."""
        started = asyncio.get_running_loop().time()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(started + self._body_timeout_s) as limit:
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise CancelledRequestError("The client went away.")
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self._max_body_bytes:
                        raise RefusedError(
                            f"The request body is longer than {self._max_body_bytes} bytes. Send fewer inputs in one "
                            "request.",
                            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                            code="body_too_large",
                        )
                    if not message.get("more_body", False):
                        return b"".join((*chunks, chunk)) if chunks else chunk
                    chunks.append(chunk)
                    limit.reschedule(started + self._body_timeout_s + size / SLOWEST_BODY_BYTES_PER_S)
        except TimeoutError:
            raise RefusedError(
                f"The request body did not come in time: {size} bytes in "
                f"{asyncio.get_running_loop().time() - started:.1f} s.",
                status=HTTPStatus.REQUEST_TIMEOUT,
                code="body_timeout",
                headers={"Connection": "close"},
            ) from None


async def _send(reply: Reply, request_id: str, send: Send) -> None:
    headers = [
        JSON,
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-request-id", request_id.encode("latin-1")),
    ]
    if reply.headers:
        sent = {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in reply.headers.items()}
        headers = [*(header for header in headers if header[0] not in sent), *sent.items()]
    await send({"type": "http.response.start", "status": int(reply.status), "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


async def _answer_other(kind: str, receive: Receive, send: Send) -> None:
    """Refuse websockets, and say that nothing is to be done when the server starts or stops."""
    if kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
