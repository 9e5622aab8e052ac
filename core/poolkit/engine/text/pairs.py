"""How two texts become one prompt: the special tokens around and between them, and which of them gives up tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["PairTemplate", "cut_pair"]

Specials: TypeAlias = tuple[tuple[int, int], ...]
"""Token ids, each with its token type."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """What a tokenizer puts before, between and after the two texts of a pair.

    The first text's tokens have type 0, those of the second `second_type`.
    """

    before: Specials = ()
    between: Specials = ()
    after: Specials = ()
    second_type: int = 0

    @property
    def size(self) -> int:
        """How many special tokens a pair gets."""
        return len(self.before) + len(self.between) + len(self.after)

    def without_special_tokens(self) -> PairTemplate:
        """Return what joins two texts where the tokenizer is to add nothing."""
        return PairTemplate(second_type=self.second_type)

    def join(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """Return the token ids of a pair and their types; None where all types are 0."""
        tokens = [
            *self.before,
            *((token_id, 0) for token_id in first),
            *self.between,
            *((token_id, self.second_type) for token_id in second),
            *self.after,
        ]
        types = [kind for _, kind in tokens]
        return [token_id for token_id, _ in tokens], types if any(types) else None


def cut_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens each of two texts keeps, so that both fit in `room`: the longer one gives up first.

    The numbers are those of the Rust library `tokenizers` (strategy `longest_first`).

        >>> cut_pair(10, 3, 8)
        (5, 3)
        >>> cut_pair(10, 9, 7)
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
