"""The load generator, a process of its own: clients on kept-alive connections that each ask, wait and ask again.

    {"port": …, "requests": [["/path", {…}], …], "clients": …, "seconds": …}   in on standard input
    {"seconds": …, "latencies_ms": […], "failures": …, "example": …}           out on standard output

The requests' bytes are made before the clock starts, and of the answers only the status and the length are read. After
`seconds` nothing more is asked; what was asked is waited for, and the seconds that are told are those until the last
answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import cast

import httptools
import uvloop

__all__ = ["main"]

OK = 200
LAST_ANSWER_S = 60.0
"""Seconds that are waited for the answers to what was asked before the end."""


class Client(asyncio.Protocol):
    """One connection: sends the next request once the last one's answer is there."""

    def __init__(self, requests: Iterator[bytes], *, ends_at: float) -> None:
        self._requests = requests
        self._ends_at = ends_at
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_s: list[float] = []
        self.failures: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        status = self._parser.get_status_code()
        if status != OK:
            self.failures.append(f"status {status}")
        else:
            self.latencies_s.append(now - self._sent_at)
        assert self._transport is not None
        if now >= self._ends_at:
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._ends_at:
            self.failures.append(f"the connection was closed: {exc}")
        if not self.is_over.done():
            self.is_over.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))


async def _run(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    turns = itertools.cycle(requests)
    start = time.perf_counter()
    connected = [
        (await loop.create_connection(lambda: Client(turns, ends_at=start + seconds), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.wait([client.is_over for client in connected], timeout=seconds + LAST_ANSWER_S)
    failures = [failure for client in connected for failure in client.failures]
    failures += ["no answer in time" for client in connected if not client.is_over.done()]
    return {
        "seconds": time.perf_counter() - start,
        "latencies_ms": [1000 * latency for client in connected for latency in client.latencies_s],
        "failures": len(failures),
        "example": failures[0] if failures else "",
    }


def _encode(path: str, body: object, port: int) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def main() -> None:
    """Read one order, run it and print what was measured."""
    order = json.load(sys.stdin)
    requests = [_encode(path, body, order["port"]) for path, body in order["requests"]]
    print(
        json.dumps(
            uvloop.run(_run(order["port"], requests, clients=order["clients"], seconds=order["seconds"])),
        )
    )


if __name__ == "__main__":
    main()
