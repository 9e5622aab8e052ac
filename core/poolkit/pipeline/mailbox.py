"""Brings functions of other threads to an event loop, all that wait in one wake-up."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Mailbox"]


class Mailbox:
    """The functions that other threads want to be run in an event loop. Made in the loop's thread.

    A batch ends many requests at once. The first wakes the loop, and the others are found when it looks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.get_ident()
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_called = False

    @property
    def is_here(self) -> bool:
        """True in the thread of the loop."""
        return threading.get_ident() == self._thread

    def post(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's thread soon; not at all once the loop is closed."""
        self._waiting.append(function)
        if self._is_called:  # `_run` resets it before it looks, so it will find what was appended above
            return
        self._is_called = True
        try:
            self.loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # the loop is closed
            self._waiting.clear()

    def _run(self) -> None:
        self._is_called = False
        while self._waiting:
            self._waiting.popleft()()
