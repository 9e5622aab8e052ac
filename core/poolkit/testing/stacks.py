"""Finds where in a plugin's own code the threads of this process are."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

__all__ = ["find_culprits"]


def find_culprits(is_own: Callable[[str], bool], thread: threading.Thread | None = None) -> list[str]:
    """Return each place where a thread is in a plugin's code: what poolkit called, and the line that it has come to.

    Args:
        is_own: given the name of a file, says whether it is one of the plugin's.
        thread: look at this one alone.
    """
    stacks = sys._current_frames()
    places = []
    for ident, innermost in stacks.items():
        own = [frame for frame in _frames(innermost) if is_own(frame.f_code.co_filename)]
        if own and (thread is None or thread.ident == ident):
            line = f"{Path(own[0].f_code.co_filename).name}, line {own[0].f_lineno}"
            places.append(f"{own[-1].f_code.co_qualname} ({line})")
    return list(dict.fromkeys(places))


def _frames(innermost: FrameType) -> Iterator[FrameType]:
    """Yield a stack's frames, the innermost first."""
    frame: FrameType | None = innermost
    while frame is not None:
        yield frame
        frame = frame.f_back
