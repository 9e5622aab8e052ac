"""Tokenizes no more of a long text than the tokens that will be kept of it: those of its beginning, or of its end.

A text that is tokenized in part has exactly the tokens that tokenizing all of it would have given: those near the cut,
which might differ in the whole text, are tokenized and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from poolkit.contract import Encoding, Tokenizer
from poolkit.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import TokenIds

__all__ = [
    "UNCERTAIN_CHARACTERS",
    "TokenizeRequest",
    "TokenizedText",
    "TokenizedTexts",
    "TruncatingTokenizer",
    "TruncationSide",
    "common_prefix",
    "excerpt",
    "is_long",
    "min_or_none",
    "truncate",
    "truncate_after_prompt",
]

TruncationSide: TypeAlias = Literal["left", "right"]

CHARACTERS_PER_TOKEN = 6
"""A guess on the high side: where it is too low, more is tokenized."""

UNCERTAIN_CHARACTERS = 256
"""Tokens so near to a cut are uncertain: nothing that a vocabulary adds to its model's tokens is longer."""
UNCERTAIN_WORDS = 2
"""So are the word that the cut goes through and its neighbour (see `Encoding`)."""

T = TypeVar("T")


class TokenizeRequest(NamedTuple):
    """A text to tokenize, without special tokens.

    Attributes:
        text: the whole of it.
        max_tokens: how many tokens will be kept at most; None for all of them.
        truncation_side: the side on which the others are dropped.
    """

    text: str
    max_tokens: int | None = None
    truncation_side: TruncationSide = "right"


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """The tokens of a text: all that it has, or those that will be kept."""

    token_ids: TokenIds
    is_whole: bool


TokenizedTexts: TypeAlias = Mapping[TokenizeRequest, TokenizedText | RequestError]
"""Texts that were tokenized, or why the tokenizer refuses them."""


class TruncatingTokenizer:
    """Tokenizes texts with one tokenizer. Used from many threads at a time.

    Attributes:
        excerpt_from: how many times the tokens that are kept of it a text must hold for an excerpt of it to be
            tokenized first: 1, but more for a tokenizer that is quick with whole texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.excerpt_from: int = getattr(tokenizer, "excerpt_from", 1)

    def tokenize(self, requests: Iterable[TokenizeRequest]) -> dict[TokenizeRequest, TokenizedText | RequestError]:
        """Return the tokens of each text, or why the tokenizer refuses it. Equal requests are tokenized once."""
        open_requests = list(dict.fromkeys(requests))
        texts: dict[TokenizeRequest, TokenizedText | RequestError] = {}
        factor = 1
        while long := [
            request
            for request in open_requests
            if request.max_tokens is not None and is_long(request.text, self.excerpt_from * factor * request.max_tokens)
        ]:
            found = _apart(long, partial(self._tokenize_part, factor=factor))
            texts.update({request: text for request, text in found.items() if text is not None})
            open_requests = [request for request in open_requests if request not in texts]
            factor *= 2
        return texts | _apart(open_requests, self._tokenize_whole)

    def find_offsets(self, text: str, tokens: int) -> Sequence[tuple[int, int]] | None:
        """Return the offsets of the first tokens of a text: so many, or all where it has no more.

        None if the tokenizer has no offsets. Raises RequestError where the text is not valid Unicode.
        """
        factor = 1
        while is_long(text, factor * tokens):
            part = excerpt(text, factor * tokens, side="right")
            for encoding in self._tokenizer.encode_with_offsets([part]) or ():
                if len(_certain_tokens(encoding, part, side="right")) >= tokens:
                    return encoding.offsets[:tokens]
            factor *= 2
        whole = self._tokenizer.encode_with_offsets([text])
        return None if whole is None else whole[0].offsets[:tokens]

    def _tokenize_whole(self, requests: Sequence[TokenizeRequest]) -> list[TokenizedText]:
        encoded = self._tokenizer.encode_batch([request.text for request in requests], add_special_tokens=False)
        return [TokenizedText(ids, is_whole=True) for ids in encoded]

    def _tokenize_part(self, requests: Sequence[TokenizeRequest], *, factor: int) -> list[TokenizedText | None]:
        """Return the tokens of each text, None where an excerpt of that size does not show so many for certain."""
        parts = [
            excerpt(request.text, factor * (request.max_tokens or 0), side=request.truncation_side)
            for request in requests
        ]
        encodings = self._tokenizer.encode_with_offsets(parts)
        if encodings is None:
            return [None] * len(requests)
        return [_certain_text(*each) for each in zip(requests, parts, encodings, strict=True)]


def is_long(text: str, tokens: int) -> bool:
    """Return whether a text is so long that tokenizing only so many tokens of it pays."""
    return len(text) > 2 * _characters(tokens)


def excerpt(text: str, tokens: int, *, side: TruncationSide) -> str:
    """Return the end of a text at which tokens are kept, so much of it as should hold so many of them.

    It is cut at a space. Where there is none near by, the end is cut off anywhere, but no beginning: some tokenizers
    count off the digits of a long number from the left. There the whole text is its excerpt.
    """
    size = _characters(tokens)
    if side == "right":
        return text[: next((place for place in range(size, min(2 * size, len(text))) if text[place].isspace()), size)]
    latest, earliest = len(text) - size, max(0, len(text) - 2 * size)
    return text[next((place for place in range(latest, earliest, -1) if text[place].isspace()), 0) :]


def min_or_none(*limits: int | None) -> int | None:
    """Return the lowest of some limits, None where none of them is set."""
    return min((limit for limit in limits if limit is not None), default=None)


def truncate(tokens: TokenIds, max_tokens: int | None, side: TruncationSide) -> TokenIds:
    """Return the tokens that stay when the others are dropped from one side; all for None. A view, not a copy."""
    if max_tokens is None or len(tokens) <= max_tokens:
        return tokens
    return tokens[len(tokens) - max_tokens :] if side == "left" else tokens[:max_tokens]


def truncate_after_prompt(
    tokens: TokenIds, *, prompt_length: int, max_length: int | None, max_text: int | None, side: TruncationSide
) -> TokenIds:
    """Return the tokens that stay of a prompt and the text behind it.

    Args:
        tokens: the prompt's and the text's.
        prompt_length: how many are the prompt's: they stay at either side, as far as there is room for them.
        max_length: tokens in all; None for any number.
        max_text: tokens of the text alone; None for any number.
        side: the side of the text that is dropped.
    """
    if max_length is not None and prompt_length > max_length:
        return tokens[:max_length]
    room = None if max_length is None else max_length - prompt_length
    text = truncate(tokens[prompt_length:], min_or_none(max_text, room), side)
    return text if prompt_length == 0 else np.concatenate([tokens[:prompt_length], text])


def common_prefix(first: TokenIds, second: TokenIds) -> int:
    """Return how many tokens two sequences have in common at their start."""
    size = min(len(first), len(second))
    differs = np.flatnonzero(first[:size] != second[:size])
    return int(differs[0]) if len(differs) else size


def _characters(tokens: int) -> int:
    """Return how many characters should hold so many tokens."""
    return CHARACTERS_PER_TOKEN * tokens + 2 * UNCERTAIN_CHARACTERS


def _certain_text(request: TokenizeRequest, part: str, encoding: Encoding) -> TokenizedText | None:
    """Return the tokens that are asked for if the part of the text shows them for certain."""
    count = request.max_tokens or 0
    certain = _certain_tokens(encoding, part, side=request.truncation_side)
    if len(certain) < count:
        return None
    kept = certain[len(certain) - count :] if request.truncation_side == "left" else certain[:count]
    return TokenizedText(encoding.token_ids[kept], is_whole=False)


def _certain_tokens(encoding: Encoding, part: str, *, side: TruncationSide) -> NDArray[np.intp]:
    """Return the indices of the tokens of an excerpt that are those of the whole text for certain."""
    if not len(encoding.token_ids):
        return np.empty(0, np.intp)
    offsets, words = np.array(encoding.offsets), np.array(encoding.word_ids)
    if side == "right":
        last, end = words[-1] - UNCERTAIN_WORDS, len(part) - UNCERTAIN_CHARACTERS
        return np.flatnonzero((words <= last) & (offsets[:, 1] <= end))
    first = words[0] + UNCERTAIN_WORDS
    return np.flatnonzero((words >= first) & (offsets[:, 0] >= UNCERTAIN_CHARACTERS))


def _apart(
    requests: Sequence[TokenizeRequest], tokenize: Callable[[Sequence[TokenizeRequest]], Sequence[T]]
) -> dict[TokenizeRequest, T | RequestError]:
    """Return what `tokenize` gives for each text; the texts that it refuses fail alone."""
    if not requests:
        return {}
    try:
        return dict(zip(requests, tokenize(requests), strict=True))
    except RequestError as error:
        if len(requests) == 1:
            return {requests[0]: error}
        return {request: found for each in requests for request, found in _apart([each], tokenize).items()}
