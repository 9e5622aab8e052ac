"""Joins two texts to one prompt: the special tokens around and between them, and the truncation of either."""

from __future__ import annotations

__all__ = ["truncate_pair"]


def truncate_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens each of two texts keeps, so that both fit in `room`: the longer one gives up first.

    The numbers are those of the Rust library `tokenizers` (strategy `longest_first`).

        >>> truncate_pair(10, 3, 8)
        (5, 3)
        >>> truncate_pair(10, 9, 7)
        (3, 4)
    """
    if first + second <= room:
        return first, second
    shorter, longer = sorted((first, second))
    longer = shorter if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)
