"""Shutting down without dropping anybody: accepted requests are answered, new ones are refused."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from poolkit.server.failures import RETRY_AFTER_DRAIN_S, RefusedError

__all__ = ["Drain"]


class Drain:
    """Counts the requests in flight, and knows whether more are taken. Lives on the event loop's thread."""

    def __init__(self) -> None:
        self.is_draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def check_open(self) -> None:
        """Raise RefusedError (503) once draining has begun."""
        if self.is_draining:
            raise RefusedError(
                "The server is shutting down and takes no new requests.",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                code="shutting_down",
                headers={"Retry-After": str(RETRY_AFTER_DRAIN_S)},
            )

    def enter(self) -> None:
        """Count a request whose body is there."""
        self.in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count it no longer: it is answered."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    def begin(self) -> None:
        """Take no more requests."""
        self.is_draining = True

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; return whether that came about in time."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
