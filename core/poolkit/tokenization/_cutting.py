"""Which tokens stay of a text, or of the two texts of a pair, that has too many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TypeVar

from poolkit.contract import PoolingParams, TextPair
from poolkit.tokenization.truncation import Reading, Side, Wanted

__all__ = ["cut", "cut_halves", "keep", "least", "limit_of", "shared", "wanted_halves"]

T = TypeVar("T")


def least(*limits: int | None) -> int | None:
    """Return the lowest of some limits, None where none of them is set."""
    return min((limit for limit in limits if limit is not None), default=None)


def cut(tokens: Sequence[T], count: int | None, drops: Side) -> Sequence[T]:
    """Return the `count` tokens that stay when the others are dropped from one side; all for None."""
    if count is None or len(tokens) <= count:
        return tokens
    return tokens[len(tokens) - count :] if drops == "left" else tokens[:count]


def keep(tokens: Sequence[T], *, lead: int, room: int | None, longest: int | None, drops: Side) -> Sequence[T]:
    """Return the tokens of a text that stay behind its prompt, and the prompt's.

    Args:
        tokens: the prompt's and the text's.
        lead: how many are the prompt's: they stay at either side, as far as there is room for them.
        room: tokens in all; None for any number.
        longest: tokens of the text alone; None for any number.
        drops: the side of the text that gives way.
    """
    if room is not None and lead > room:
        return tokens[:room]
    body = cut(tokens[lead:], least(longest, None if room is None else room - lead), drops)
    return body if lead == 0 else [*tokens[:lead], *body]


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def limit_of(params: PoolingParams, input_type: str | None) -> int | None:
    """Return how many tokens a text of that type may have by itself, None where any number."""
    return {"query": params.max_tokens_per_query, "document": params.max_tokens_per_doc}.get(input_type or "")


def wanted_halves(pair: TextPair, params: PoolingParams, *, room: int | None) -> tuple[Wanted, Wanted]:
    """Return how much has to be read of the texts of a pair, which have `room` tokens together; None for any number.

    One token more than fits is read: it shows that the text is too long.
    """
    most = None if room is None else room + 1
    first, second = (least(limit_of(params, kind), most) for kind in ("query", "document"))
    drops = params.truncation_side
    return Wanted(pair.first, first, drops), Wanted(pair.second, second, drops)


def cut_halves(first: Reading, second: Reading, params: PoolingParams) -> tuple[Sequence[int], Sequence[int]]:
    """Return the tokens of the texts of a pair, each cut to what it may have by itself."""
    drops = params.truncation_side
    return (
        cut(first.token_ids, params.max_tokens_per_query, drops),
        cut(second.token_ids, params.max_tokens_per_doc, drops),
    )
