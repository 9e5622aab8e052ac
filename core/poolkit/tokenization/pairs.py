"""Composes the token ids of two texts: the special tokens around and between them, and the truncation of either."""

from __future__ import annotations

from poolkit.contract import EncodedPrompt, PairTemplate, ResolvedParams, TextPair, TokenIds
from poolkit.errors import RequestError
from poolkit.tokenization.truncation import (
    TokenizedText,
    TokenizeRequest,
    TruncatingTokenizer,
    min_or_none,
    truncate,
)

__all__ = ["compose_pair", "pair_requests", "truncate_pair"]


def pair_requests(
    pair: TextPair, params: ResolvedParams, *, room: int | None
) -> tuple[TokenizeRequest, TokenizeRequest]:
    """Return how much has to be tokenized of a pair, whose texts have `room` tokens together; None for any number.

    One token more than fits is tokenized: it shows that the text is too long.
    """
    most, side = None if room is None else room + 1, params.truncation_side
    return (
        TokenizeRequest(pair.first, min_or_none(params.max_tokens_per_query, most), side),
        TokenizeRequest(pair.second, min_or_none(params.max_tokens_per_doc, most), side),
    )


def compose_pair(
    pair: TextPair,
    params: ResolvedParams,
    first: TokenizedText,
    second: TokenizedText,
    *,
    template: PairTemplate,
    room: int | None,
    truncating: TruncatingTokenizer,
) -> EncodedPrompt:
    """Return a pair, its texts truncated as `params` ask and the special tokens kept.

    Args:
        pair: the texts.
        params: how they are truncated.
        first: as far as `pair_requests` asked for it.
        second: likewise.
        template: the special tokens.
        room: tokens of both texts together; None for any number.
        truncating: tokenizes more of a text where that is needed.
    """
    halves, side = _truncate_halves(first, second, params), params.truncation_side
    if room is not None:
        if not (first.is_whole and second.is_whole) and min(map(len, halves)) > room:
            halves = _whole_halves(pair, params, truncating)  # which of the two is longer decides how both are cut
        kept = truncate_pair(len(halves[0]), len(halves[1]), room)
        halves = truncate(halves[0], kept[0], side), truncate(halves[1], kept[1], side)
    ids, types = template.join(*halves)
    end = len(ids) - len(template.after)
    return EncodedPrompt(
        ids, params, types, is_query=params.input_type == "query", cuttable=(end - len(halves[1]), end)
    )


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


def _whole_halves(pair: TextPair, params: ResolvedParams, truncating: TruncatingTokenizer) -> tuple[TokenIds, TokenIds]:
    requests = pair_requests(pair, params, room=None)
    texts = truncating.tokenize(requests)
    first, second = (texts[request] for request in requests)
    for text in (first, second):
        if isinstance(text, RequestError):
            raise text
    assert isinstance(first, TokenizedText)
    assert isinstance(second, TokenizedText)
    return _truncate_halves(first, second, params)


def _truncate_halves(first: TokenizedText, second: TokenizedText, params: ResolvedParams) -> tuple[TokenIds, TokenIds]:
    """Return the tokens of the texts of a pair, each truncated to what it may have by itself."""
    side = params.truncation_side
    return (
        truncate(first.token_ids, params.max_tokens_per_query, side),
        truncate(second.token_ids, params.max_tokens_per_doc, side),
    )
