"""Divides documents that are too many or too long for one prompt into blocks that are read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Room", "split"]


@dataclass(frozen=True, slots=True)
class Room:
    """The room for the documents of one prompt.

    Attributes:
        documents: how many there may be.
        tokens: how many they may have together, what stands around each of them included.
        planned_tokens: how many they may have together, by themselves, as the model's own `rerank` reckons.
        longest: the most tokens that a document has, by itself.
        tokens_around: what stands around each of them, in tokens.
    """

    documents: int
    tokens: int
    planned_tokens: int
    longest: int
    tokens_around: int


def split(lengths: Sequence[int], room: Room) -> Iterator[slice]:
    """Yield the documents of each block, given the tokens of all documents.

    As in the model's own `rerank`, a block ends where one more document of the greatest length could be too much. That
    leaves out what stands around the documents, so a block also ends where the next one would not fit.
    """
    start = tokens = 0
    for place, length in enumerate(lengths):
        count = place - start
        if count and tokens + length + (count + 1) * room.tokens_around > room.tokens:
            yield slice(start, place)
            start, tokens, count = place, 0, 0
        tokens += length
        if count + 1 == room.documents or room.planned_tokens - tokens <= room.longest:
            yield slice(start, place + 1)
            start, tokens = place + 1, 0
    if start < len(lengths):
        yield slice(start, len(lengths))
