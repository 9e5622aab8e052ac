"""A worker's end of the link with the process that started it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from enum import Enum, auto
from multiprocessing.connection import Connection
from typing import Protocol

from poolkit.errors import ClosedError, PoolkitError
from poolkit.pipeline.served import ServedModel
from poolkit.server.metrics import Metrics

__all__ = ["Command", "Counts", "Parent", "Ready", "Scrape", "Stoppable"]


class Command(Enum):
    """The orders of the parent."""

    DRAIN = auto()
    STOP = auto()
    COUNT = auto()


class Ready(dict[str, str]):
    """A worker's word that it is ready: the tasks that it serves by the names of the models."""


class Scrape:
    """A worker's question for the counts of all workers."""


class Counts(list[object]):
    """A worker's counts."""


class Stoppable(Protocol):
    """A server that can be stopped from another thread."""

    def drain(self) -> None:
        """Take no more requests, finish those that were taken, then stop."""
        ...

    def stop(self) -> None:
        """Stop at once."""
        ...


class Parent:
    """The process that has started this one. Thread safe.

    A thread of its own listens to it. Where it is gone, this process drains and ends.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._scrapes: list[Future[bytes]] = []

    def start(self, server: Stoppable, models: Mapping[str, ServedModel], metrics: Metrics) -> None:
        """Tell that the server is ready, and listen."""
        self._send(Ready({name: served.task.name for name, served in models.items()}))
        threading.Thread(target=self._listen, args=(server, metrics), name="poolkit-parent", daemon=True).start()

    def fail(self, error: PoolkitError) -> None:
        """Tell why the server cannot start."""
        self._send(error)

    async def scrape(self) -> bytes:
        """Return the counts of all workers in Prometheus' text format."""
        answer: Future[bytes] = Future()
        with self._lock:
            self._scrapes.append(answer)
        await asyncio.to_thread(self._send, Scrape())
        return await asyncio.wrap_future(answer)

    def _send(self, message: object) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:  # the parent is gone, which `_listen` sees too
                return

    def _listen(self, server: Stoppable, metrics: Metrics) -> None:
        try:
            while True:
                message = self._connection.recv()
                if message is Command.DRAIN:
                    server.drain()
                elif message is Command.STOP:
                    server.stop()
                elif message is Command.COUNT:
                    self._send(Counts(metrics.collect()))
                else:
                    with self._lock:
                        waiting = self._scrapes.pop(0)
                    waiting.set_result(message)
        except (EOFError, OSError):
            server.drain()
            for waiting in self._scrapes:
                waiting.set_exception(ClosedError("The server is shutting down."))
