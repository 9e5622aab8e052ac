"""Composes the token ids of pairs of texts, all pairs at once: their special tokens, and the truncation of either text.

A query that stands in a thousand pairs is one text, and no Python code runs for each pair but to make its prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import EncodedPrompt, PairTemplate, ResolvedParams, TextPair, TokenIds
from poolkit.errors import RequestError
from poolkit.tokenization.truncation import (
    TokenizedText,
    TokenizedTexts,
    TokenizeRequest,
    TruncatingTokenizer,
    TruncationSide,
    min_or_none,
)

__all__ = ["PairBatch", "truncate_pairs"]

Numbers: TypeAlias = NDArray[np.int64]
"""A number for each pair, or for each of some texts."""

NO_TOKENS: TokenIds = np.empty(0, np.int32)


class PairBatch:
    """Pairs of texts that are read with the same parameters.

    Args:
        pairs: the texts.
        params: how they are truncated.
        template: the special tokens.
        room: tokens that both texts of a pair may have together; None for any number.
    """

    def __init__(
        self, pairs: Sequence[TextPair], params: ResolvedParams, *, template: PairTemplate, room: int | None
    ) -> None:
        self._params = params
        self._template = template
        self._room = room
        side = params.truncation_side
        # One token more than fits is tokenized: it shows that the text is too long.
        most = None if room is None else room + 1
        self._first = _Side.of([pair.first for pair in pairs], params.max_tokens_per_query, most, side)
        self._second = _Side.of([pair.second for pair in pairs], params.max_tokens_per_doc, most, side)

    def requests(self) -> list[TokenizeRequest]:
        """Return how much of which texts has to be tokenized."""
        return [*self._first.requests(), *self._second.requests()]

    def shared_requests(self) -> list[TokenizeRequest]:
        """Return the same of the texts that stand in several pairs."""
        return [request for side in (self._first, self._second) for request in side.shared_requests()]

    def compose(
        self, texts: TokenizedTexts, truncating: TruncatingTokenizer, indices: Sequence[int]
    ) -> list[EncodedPrompt | RequestError]:
        """Return each pair as a prompt, its texts truncated and the special tokens kept; or why it cannot be one.

        Args:
            texts: as far as `requests` asked for them.
            truncating: tokenizes more of a text where that is needed.
            indices: the index of each pair among the prompts of its request.
        """
        sides = (self._first.read(texts), self._second.read(texts))
        if self._room is not None:
            sides = self._read_whole_where_needed(sides, truncating)
        kept = [side.lengths for side in sides]
        if self._room is not None:
            kept = list(truncate_pairs(kept[0], kept[1], self._room))
        ids, types, ends = self._join(sides, kept)
        prompts = self._make_prompts(ids, types, ends, kept[1], indices)
        for side in reversed(sides):  # the first text's error is told where both have one
            for pair, error in side.errors():
                prompts[pair] = RequestError(f"Prompt {indices[pair]}: {error}", param="input")
        return prompts

    def _read_whole_where_needed(
        self, sides: tuple[_ReadSide, _ReadSide], truncating: TruncatingTokenizer
    ) -> tuple[_ReadSide, _ReadSide]:
        """Tokenize all of both texts where which of them is longer decides how both are cut, and that is not known."""
        first, second = sides
        is_partial = ~(first.is_whole & second.is_whole)
        pairs = np.flatnonzero(is_partial & (np.minimum(first.lengths, second.lengths) > (self._room or 0)))
        if not len(pairs):
            return sides
        wholes = (self._first.whole(pairs), self._second.whole(pairs))
        texts = truncating.tokenize(request for whole in wholes for request in whole.requests())
        return first.updated(pairs, wholes[0].read(texts)), second.updated(pairs, wholes[1].read(texts))

    def _join(
        self, sides: tuple[_ReadSide, _ReadSide], kept: Sequence[Numbers]
    ) -> tuple[TokenIds, TokenIds | None, Numbers]:
        """Return the token ids of all pairs end to end, their types, and where each pair ends.

        The types are None where all are 0.
        """
        template = self._template
        specials = (template.before, template.between, template.after)
        special_ids, special_types = np.array([*specials[0], *specials[1], *specials[2]], np.int32).reshape(-1, 2).T
        source = np.concatenate([special_ids, *sides[0].token_ids, *sides[1].token_ids])
        size = len(special_ids)
        starts, lengths = np.empty((2, len(kept[0]), 5), np.int64)  # (pairs, pieces)
        special_starts = np.cumsum([0, *map(len, specials)])
        for piece in range(3):
            starts[:, 2 * piece], lengths[:, 2 * piece] = special_starts[piece], len(specials[piece])
        for place, (side, before) in enumerate(zip(sides, (size, size + sides[0].size), strict=True)):
            starts[:, 2 * place + 1] = before + side.starts(kept[place], self._params.truncation_side)
            lengths[:, 2 * place + 1] = kept[place]
        ends = lengths.cumsum().reshape(lengths.shape)  # of each piece, end to end
        shifts = np.repeat((starts - ends + lengths).reshape(-1), lengths.reshape(-1))
        places = shifts + np.arange(len(shifts))  # of each token in `source`
        types = None
        if template.second_type or special_types.any():
            of_texts = np.repeat(np.array([0, template.second_type], np.int32), [sides[0].size, sides[1].size])
            types = np.concatenate([special_types, of_texts])[places]
        return source[places], types, ends[:, -1]

    def _make_prompts(
        self, ids: TokenIds, types: TokenIds | None, ends: Numbers, of_second: Numbers, indices: Sequence[int]
    ) -> list[EncodedPrompt | RequestError]:
        params, is_query = self._params, self._params.input_type == "query"
        stops = ends - len(self._template.after)
        prompts: list[EncodedPrompt | RequestError] = []
        start = 0
        for end, index, cuttable in zip(
            ends.tolist(), indices, zip((stops - of_second).tolist(), stops.tolist(), strict=True), strict=True
        ):
            prompts.append(
                EncodedPrompt(
                    ids[start:end],
                    params,
                    None if types is None else types[start:end],
                    is_query=is_query,
                    cuttable=(cuttable[0] - start, cuttable[1] - start),
                    index=index,
                )
            )
            start = end
        return prompts


def truncate_pairs(first: Numbers, second: Numbers, room: int) -> tuple[Numbers, Numbers]:
    """Return how many tokens each of two texts keeps, so that both fit in `room`: the longer one gives up first.

    The numbers are those of the Rust library `tokenizers` (strategy `longest_first`).

        >>> import numpy as np
        >>> truncate_pairs(np.array([10, 10]), np.array([3, 9]), 8)
        (array([5, 4]), array([3, 4]))
    """
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    longer = np.where(shorter > room, shorter, np.maximum(shorter, room - shorter))
    is_halved = shorter + longer > room
    shorter, longer = np.where(is_halved, room // 2, shorter), np.where(is_halved, room - room // 2, longer)
    fits, is_longer = first + second <= room, first > second
    return (
        np.where(fits, first, np.where(is_longer, longer, shorter)),
        np.where(fits, second, np.where(is_longer, shorter, longer)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """The first or the second texts of some pairs, each different one once.

    Attributes:
        texts: the texts.
        text_of: of each pair, the place of its text in `texts`. (pairs,)
        limit: tokens that each may have by itself; None for any number.
        max_tokens: tokens that have to be seen of each; None for all.
        truncation_side: the side on which the others are dropped.
    """

    texts: Sequence[str]
    text_of: NDArray[np.intp]
    limit: int | None
    max_tokens: int | None
    truncation_side: TruncationSide

    @classmethod
    def of(cls, texts: Sequence[str], limit: int | None, most: int | None, side: TruncationSide) -> _Side:
        """Return a side of some pairs."""
        place_of = dict(zip(dict.fromkeys(texts), count(), strict=False))
        text_of = np.fromiter(map(place_of.__getitem__, texts), np.intp, len(texts))
        return cls(list(place_of), text_of, limit, min_or_none(limit, most), side)

    def whole(self, pairs: NDArray[np.intp]) -> _Side:
        """Return the texts of some of the pairs, to be tokenized as far as each may go by itself."""
        texts = [self.texts[place] for place in self.text_of[pairs].tolist()]
        return _Side.of(texts, self.limit, None, self.truncation_side)

    def requests(self) -> list[TokenizeRequest]:
        """Return how much of which texts has to be tokenized."""
        return [TokenizeRequest(text, self.max_tokens, self.truncation_side) for text in self.texts]

    def shared_requests(self) -> list[TokenizeRequest]:
        """Return the same of the texts that stand in several pairs."""
        shared = np.flatnonzero(np.bincount(self.text_of, minlength=len(self.texts)) > 1).tolist()
        return [TokenizeRequest(self.texts[place], self.max_tokens, self.truncation_side) for place in shared]

    def read(self, texts: TokenizedTexts) -> _ReadSide:
        """Return the tokens of the texts."""
        return _ReadSide.of([texts[request] for request in self.requests()], self.text_of, self.limit)


@dataclass(frozen=True, slots=True, eq=False)
class _ReadSide:
    """The tokens of one side of some pairs.

    Attributes:
        found: each different text, or why the tokenizer refuses it.
        text_of: of each pair, the place of its text in `found`. (pairs,)
        limit: tokens that each may have by itself; None for any number.
        token_ids: of each different text.
        sizes: how many those are. (different texts,)
    """

    found: Sequence[TokenizedText | RequestError]
    text_of: NDArray[np.intp]
    limit: int | None
    token_ids: Sequence[TokenIds]
    sizes: Numbers

    @classmethod
    def of(
        cls, found: Sequence[TokenizedText | RequestError], text_of: NDArray[np.intp], limit: int | None
    ) -> _ReadSide:
        """Return the tokens of one side."""
        token_ids = [NO_TOKENS if isinstance(text, RequestError) else text.token_ids for text in found]
        return cls(found, text_of, limit, token_ids, np.array([len(ids) for ids in token_ids], np.int64))

    @property
    def size(self) -> int:
        """Tokens of all different texts together."""
        return int(self.sizes.sum())

    @property
    def lengths(self) -> Numbers:
        """Tokens of each pair's text, as far as it may go by itself. (pairs,)"""
        of_each = self.sizes[self.text_of]
        if self.limit is None or not len(of_each):
            return of_each
        return np.minimum(of_each, min(self.limit, int(of_each.max())))  # a limit may be larger than any int64

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """True for each pair that has all tokens of its text here. (pairs,)"""
        is_whole = [isinstance(text, RequestError) or text.is_whole for text in self.found]
        return np.array(is_whole, np.bool_)[self.text_of]

    def starts(self, kept: Numbers, side: TruncationSide) -> Numbers:
        """Return where the tokens that each pair keeps start among those of all different texts. (pairs,)"""
        ends = self.sizes.cumsum()
        return (ends[self.text_of] - kept) if side == "left" else (ends - self.sizes)[self.text_of]

    def errors(self) -> Iterable[tuple[int, RequestError]]:
        """Yield each pair whose text the tokenizer refuses."""
        for place, text in enumerate(self.found):
            if isinstance(text, RequestError):
                yield from ((pair, text) for pair in np.flatnonzero(self.text_of == place).tolist())

    def updated(self, pairs: NDArray[np.intp], other: _ReadSide) -> _ReadSide:
        """Return this side with the texts of another one for some of its pairs."""
        text_of = self.text_of.copy()
        text_of[pairs] = len(self.found) + other.text_of
        return _ReadSide.of([*self.found, *other.found], text_of, self.limit)
