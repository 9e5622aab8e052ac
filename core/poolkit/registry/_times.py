"""How long hooks take: a histogram of seconds that any thread adds to and any metrics system can read."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["HookTimes", "TimesRead"]

BOUNDS_S = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True, slots=True)
class TimesRead:
    """The calls so far.

    Attributes:
        calls_within: pairs of a bound in seconds and the number of calls that took no longer; the last is infinite.
        seconds: of all calls together.
    """

    calls_within: tuple[tuple[float, int], ...]
    seconds: float


class HookTimes:
    """The durations of one plugin's calls of one hook. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = [0] * (len(BOUNDS_S) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one call."""
        with self._lock:
            self._calls[bisect_left(BOUNDS_S, seconds)] += 1
            self._seconds += seconds

    def read(self) -> TimesRead:
        """Return the counts so far."""
        with self._lock:
            calls, seconds = tuple(self._calls), self._seconds
        return TimesRead(tuple(zip((*BOUNDS_S, float("inf")), accumulate(calls), strict=True)), seconds)
