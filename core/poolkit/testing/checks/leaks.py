"""Finds what is left behind: memory, threads that still run, files and sockets that are still open."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from poolkit.testing.checks.plugin import PluginUnderTest, open_files

__all__ = ["Work", "blocks_left", "bytes_held", "find_line", "is_left_running", "left_open", "tracing"]

Work: TypeAlias = Callable[[], object]

ENDING_S = 0.5
"""The time that a thread may take to end, once it has been told to."""


def blocks_left(warm_up: Work, work: Work) -> int:
    """Return how many blocks of memory some work leaves behind, after other work: Python's own count."""
    gc.freeze()  # what is there already need not be looked through twice
    try:
        warm_up()
        _collect()
        blocks = sys.getallocatedblocks()
        work()
        _collect()
        return sys.getallocatedblocks() - blocks
    finally:
        gc.unfreeze()


@contextmanager
def tracing() -> Iterator[None]:
    """Let `bytes_held` know of all memory that is allocated in the block."""
    _collect()
    gc.freeze()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def bytes_held() -> int:
    """Return the size of all that was allocated since `tracing` began and is still held: objects, arrays, tensors."""
    _collect()
    traced, _ = tracemalloc.get_traced_memory()
    torch = sys.modules.get("torch")
    if torch is None:
        return traced
    tensors = [held for held in gc.get_objects() if issubclass(type(held), torch.Tensor)]
    return traced + sum(int(tensor.nbytes) for tensor in tensors)


def find_line(plugin: PluginUnderTest, warm_up: Work, work: Work) -> str:
    """Return where in the plugin's code some work allocates memory and leaves it behind, if it does so there."""
    tracemalloc.start()
    try:
        warm_up()
        _collect()
        before = tracemalloc.take_snapshot()
        work()
        _collect()
        growth = tracemalloc.take_snapshot().compare_to(before, "lineno")
    finally:
        tracemalloc.stop()
    own = [line for line in growth if line.size_diff > 0 and plugin.is_own(line.traceback[0].filename)]
    if not own:
        return ""
    return f" in {Path(own[0].traceback[0].filename).name}, line {own[0].traceback[0].lineno}"


def is_left_running(thread: threading.Thread) -> bool:
    """Return whether a thread goes on, after some time to end."""
    thread.join(ENDING_S)
    return thread.is_alive()


def left_open(files: Mapping[str, str]) -> list[str]:
    """Return what is open, files and sockets, and was not when `open_files` returned `files`."""
    return [target for number, target in open_files().items() if files.get(number) != target]


def _collect() -> None:
    """Free what nothing refers to but garbage and Python's own cache of attributes, which fills slowly."""
    gc.collect()
    if sys.version_info >= (3, 13):
        sys._clear_internal_caches()
    else:
        sys._clear_type_cache()
