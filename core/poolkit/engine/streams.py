"""The engine's threads, its streams: how many there are, and how many threads of torch each may use."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolkit.contract import Decision

if TYPE_CHECKING:
    from poolkit.config import ModelConfig

__all__ = ["Streams", "limit_torch_threads", "usable_cores"]

TORCH_THREADS = threading.Lock()
"""Held while the number of torch's threads is changed for one thread: for that time all new threads would get it."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The threads that run batches at the same time.

    Attributes:
        count: of streams.
        threads: that torch uses in each; None for torch's own choice.
        efficient_tokens: tokens of a batch from which on a larger one is hardly faster per token.
        source: where the count comes from, for the start-up report.
    """

    count: int
    threads: int | None
    efficient_tokens: int
    source: str

    @classmethod
    def resolve(cls, config: ModelConfig, *, gains_from: int, efficient_tokens: int) -> Streams:
        """Return what the operator says, or what the engine gains from: the cores are shared out among the streams."""
        count = config.num_streams or gains_from
        source = "num_streams" if config.num_streams else "auto: what the engine gains from"
        threads = config.threads_per_stream
        if threads is None and count > 1:
            threads = max(1, usable_cores() // count)
        return cls(count, threads, efficient_tokens, source)

    @property
    def decision(self) -> Decision:
        """A line of the start-up report."""
        threads = "" if self.threads is None else f" of {self.threads} thread{'s' if self.threads > 1 else ''}"
        return Decision("streams", f"{self.count}{threads}", self.source)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_torch_threads(count: int) -> None:
    """Let torch use so many threads for the work of the calling thread, and leave other threads as they are.

    No-op where nothing has imported torch.
    """
    if "torch" not in sys.modules:
        return
    import torch

    with TORCH_THREADS:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        # OpenMP keeps the number by thread, but torch hands the last one set to each thread that begins later.
        restoring = threading.Thread(target=torch.set_num_threads, args=(before,), name="poolkit-torch-threads")
        restoring.start()
        restoring.join()
