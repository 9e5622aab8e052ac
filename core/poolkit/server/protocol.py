"""Uvicorn's HTTP/1.1 with limits: on headers and their time, and on what an upgrade or a half-close may break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from poolkit.contract import Failure
from poolkit.server.failures import openai_error

__all__ = ["GuardedProtocol", "Limits"]

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 256

FIRST_PROBE_S, NEXT_PROBES_S = 0.1, 1.0

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
"""A client must be able to read it at any time before an answer."""

UPGRADE_FIELDS = (b"upgrade", b"http2-settings")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a connection.

    Attributes:
        head_timeout_s: the time in which a request's line and headers must be there, from the connection's start or
            their first byte. It also ends a connection whose body goes on after the answer.
        count: is told the status of each refusal.
    """

    head_timeout_s: float
    count: Callable[[int], None]


class _TooLargeError(Exception):
    """The head of a request is larger than it may be."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    * A head of more than 64 KiB or 256 fields is answered 431, one that does not come in time 408.
    * An upgrade is ignored, as no other protocol is served: the request keeps its body.
    * A client that closes its sending half after a request is answered.
    * At shut-down a body that has not come is not waited for.
    """

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._is_in_head = self._is_upgrade = self._is_refused = False
        self._head_bytes = 0  # of the open head, in the chunks that it did not begin in
        self._field_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Give the first head its time."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._unset_keepalive_if_required()
        if self._is_refused:
            return
        was_in_head = self._is_in_head
        try:
            rest = data
            while rest:
                rest = self._feed(rest)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooLargeError):
                self._refuse_head()
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", "This is not a valid HTTP/1.1 request.")
            return
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:  # of a field that never ends, which the parser has not told yet
                self._refuse_head()
                return
        if self._timer is None and (self._is_in_head or not self._owes_answer):
            self._start_timer()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never keeps the transport open
        """Keep the connection until a whole request is answered; with TLS there are no half-closes."""
        cycle = self.cycle
        if not self._owes_answer or cycle.more_body or self.scheme == "https":
            return False
        cycle.keep_alive = False
        self._stop_timer()
        self._probe(FIRST_PROBE_S)
        return True

    def shutdown(self) -> None:
        """Close the connection, once what it is owed is sent."""
        if self._owes_answer and self.cycle.more_body:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", "The server is shutting down.")
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = self._field_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field."""
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)
        if len(self.headers) > MAX_FIELDS:
            raise _TooLargeError

    def on_headers_complete(self) -> None:
        """End the head. The request starts, unless it asks for an upgrade: then it is parsed again without."""
        self._is_in_head = False
        self._stop_timer()
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        self._is_upgrade = self.parser.should_upgrade()
        if not self._is_upgrade:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body. The parser says so after the head of an upgrade as well."""
        if not self._is_upgrade:
            super().on_message_complete()

    @property
    def _owes_answer(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _feed(self, data: bytes) -> bytes:
        """Parse data; return what to parse next where an upgrade is ignored: the head without it, and what follows."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            return head + data[upgrade.args[0] :]
        return b""

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            kept = value
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = b", ".join(option for option in options if option.lower() not in UPGRADE_FIELDS)
            if name not in UPGRADE_FIELDS and kept:
                lines.append(name + b": " + kept)
        return b"\r\n".join((*lines, b"", b""))

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MAX_HEAD_BYTES:
            raise _TooLargeError

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._limits.head_timeout_s, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if self.cycle is None or self._is_in_head:
            seconds = self._limits.head_timeout_s
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, "header_timeout", f"The request's headers did not come in {seconds:g} s."
            )
        elif not self._owes_answer:
            self.transport.close()

    def _probe(self, delay_s: float) -> None:
        """Find out whether a client that sends nothing more still reads: one that is gone looks the same.

        Its system refuses an interim response, and the next write fails, which ends the connection.
        """
        if not self.transport.is_closing() and not self.cycle.response_started:
            self.transport.write(INTERIM)
            self._timer = self.loop.call_later(delay_s, self._probe, NEXT_PROBES_S)

    def _refuse_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            f"The request's headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_FIELDS}.",
        )

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        """Answer in place of the app, and close: after the answers that earlier requests are owed."""
        self._is_refused = True
        self._stop_timer()
        cycle = self.cycle
        if self._owes_answer:
            cycle.keep_alive = False
            if self.pipeline or cycle.response_started or not cycle.more_body:
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._limits.count(status)
        reply = openai_error(Failure(status, message, "invalid_request_error", code))
        lines = (
            STATUS_LINE[status],
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(reply.body),
            b"connection: close\r\n\r\n",
            reply.body,
        )
        self.transport.write(b"".join(lines))
        self.transport.close()
