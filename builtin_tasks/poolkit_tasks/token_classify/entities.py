"""From the scores of tokens to entities: the rules of transformers' pipeline "token-classification"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from poolkit import AggregationStrategy, Entity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit import TextToken

__all__ = ["WHOLE_WORDS", "ScoredToken", "find_entities"]

T = TypeVar("T")

WHOLE_WORDS = frozenset((AggregationStrategy.FIRST, AggregationStrategy.AVERAGE, AggregationStrategy.MAX))
"""The strategies that give all tokens of a word one label."""

OUTSIDE = "O"
"""The label of what is no entity."""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a text, its place among the prompt's tokens, and the score of each label. (labels,)"""

    index: int
    token: TextToken
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token or a word with the one label that was chosen for it."""

    label: str
    score: np.float32
    word: str
    start: int | None
    end: int | None

    @property
    def tag(self) -> str:
        """The label without its B- or I-."""
        return self.label[2:] if self.label.startswith(("B-", "I-")) else self.label


def find_entities(
    tokens: Sequence[ScoredToken],
    strategy: AggregationStrategy,
    *,
    names: Mapping[int, str],
    join: Callable[[Sequence[str]], str],
) -> list[Entity]:
    """Return the entities of a text, in its order.

    Args:
        tokens: the text's own, special tokens left out.
        strategy: how they become entities.
        names: of the labels, by index.
        join: makes text of tokens.
    """
    if strategy is AggregationStrategy.NONE:
        return [
            Entity(
                entity=piece.label,
                score=float(piece.score),
                index=one.index,
                word=piece.word,
                start=piece.start,
                end=piece.end,
            )
            for one in tokens
            if (piece := _of_token(one, names)).label != OUTSIDE
        ]
    if strategy in WHOLE_WORDS:
        words = _split(tokens, is_start=lambda _, one: not one.token.is_subword)
        pieces = [_of_word(word, strategy, names, join) for word in words]
    else:
        pieces = [_of_token(one, names) for one in tokens]
    groups = _split(pieces, is_start=lambda last, one: one.tag != last.tag or one.label.startswith("B-"))
    return [entity for group in groups if (entity := _merge(group, join)).entity_group != OUTSIDE]


def _of_token(one: ScoredToken, names: Mapping[int, str]) -> Piece:
    best = int(one.scores.argmax())
    return Piece(names[best], one.scores[best], one.token.token, one.token.start, one.token.end)


def _of_word(
    word: Sequence[ScoredToken],
    strategy: AggregationStrategy,
    names: Mapping[int, str],
    join: Callable[[Sequence[str]], str],
) -> Piece:
    if strategy is AggregationStrategy.FIRST:
        scores = word[0].scores
    elif strategy is AggregationStrategy.MAX:
        scores = max((one.scores for one in word), key=np.max)
    else:
        scores = np.mean([one.scores for one in word], axis=0)
    best = int(scores.argmax())
    text = join([one.token.token for one in word])
    return Piece(names[best], scores[best], text, word[0].token.start, word[-1].token.end)


def _merge(group: Sequence[Piece], join: Callable[[Sequence[str]], str]) -> Entity:
    return Entity(
        # What stands behind the first hyphen, as in the pipeline: also of a label such as "PER-first".
        entity_group=group[0].label.split("-", 1)[-1],
        score=float(np.mean([piece.score for piece in group])),
        word=join([piece.word for piece in group]),
        start=group[0].start,
        end=group[-1].end,
    )


def _split(items: Sequence[T], *, is_start: Callable[[T, T], bool]) -> list[Sequence[T]]:
    """Cut a sequence before each item that, given the one before it, starts a new part."""
    starts = [place for place, (last, one) in enumerate(pairwise(items), 1) if is_start(last, one)]
    return [items[begin:stop] for begin, stop in pairwise((0, *starts, len(items)))] if items else []
