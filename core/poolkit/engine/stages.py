"""Seconds that requests spend in their stages, added up since start-up for the metrics."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum

__all__ = ["Stage", "Stages"]


class Stage(StrEnum):
    """A stage of a request outside of hooks, which are measured by themselves.

    The queue's seconds are those of each prompt, added up; the forward pass's are those of each batch.
    """

    DECODE = "decode"
    TOKENIZE = "tokenize"
    QUEUE = "queue"
    FORWARD = "forward"
    ENCODE = "encode"


class Stages:
    """Seconds by stage. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(Stage, 0.0)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add the seconds that something took."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self) -> Mapping[Stage, float]:
        """Return the seconds of each stage since start-up."""
        with self._lock:
            return dict(self._seconds)
