"""Reads no more of a long text than the tokens that will be kept of it: those of its beginning, or of its end.

What is read in part has exactly the tokens that reading all of it would have given: those near the cut, which might be
others in the whole text, are read and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from poolkit.contract import Encoding, Tokenizer
from poolkit.errors import RequestError

__all__ = [
    "DOUBTFUL_CHARACTERS",
    "Reader",
    "Reading",
    "Readings",
    "Side",
    "Wanted",
    "excerpt",
    "is_long",
    "pick",
    "shown",
    "window",
]

Side: TypeAlias = Literal["left", "right"]

CHARACTERS_PER_TOKEN = 6
"""A guess on the high side: where it is too low, more is read."""

DOUBTFUL_CHARACTERS = 256
"""Tokens so near to a cut are doubted: nothing that a vocabulary adds to its model's tokens is longer."""
DOUBTFUL_WORDS = 2
"""So are the word that the cut goes through and its neighbour (see `Encoding`)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text whose tokens are wanted, without special tokens.

    Attributes:
        text: the whole of it.
        count: how many tokens will be kept at most; None for all of them.
        drops: the side on which the others are left out.
    """

    text: str
    count: int | None = None
    drops: Side = "right"


@dataclass(frozen=True, slots=True)
class Reading:
    """The tokens of a text: all that it has, or those that will be kept."""

    token_ids: Sequence[int]
    is_whole: bool


Readings: TypeAlias = Mapping[Wanted, Reading | RequestError]
"""What was read of some texts, or why the tokenizer refuses them."""


class Reader:
    """Reads texts with one tokenizer. Used from many threads at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def read(self, wanted: Iterable[Wanted]) -> dict[Wanted, Reading | RequestError]:
        """Return the tokens of each text, or why the tokenizer refuses it. A text that is wanted twice is read once."""
        unread = list(dict.fromkeys(wanted))
        readings: dict[Wanted, Reading | RequestError] = {}
        factor = 1
        while long := [one for one in unread if one.count is not None and is_long(one.text, factor * one.count)]:
            found = _settle(long, partial(self._read_in_part, factor=factor))
            readings.update({one: reading for one, reading in found.items() if reading is not None})
            unread = [one for one in unread if one not in readings]
            factor *= 2
        return readings | _settle(unread, self._read_whole)

    def find_spans(self, text: str, tokens: int) -> Sequence[tuple[int, int]] | None:
        """Return where the first tokens of a text lie: so many, or all where it has no more; None where nobody knows.

        Raises RequestError where the text is not valid Unicode.
        """
        factor = 1
        while is_long(text, factor * tokens):
            part = excerpt(text, factor * tokens, drops="right")
            for located in self._tokenizer.encode_with_offsets([part]) or ():
                places = _certain_places(located, part, drops="right")
                if len(places) >= tokens:
                    return located.offsets[:tokens]
            factor *= 2
        located_whole = self._tokenizer.encode_with_offsets([text])
        return None if located_whole is None else located_whole[0].offsets[:tokens]

    def _read_whole(self, wanted: Sequence[Wanted]) -> list[Reading]:
        encoded = self._tokenizer.encode_batch([one.text for one in wanted], add_special_tokens=False)
        return [Reading(ids, is_whole=True) for ids in encoded]

    def _read_in_part(self, wanted: Sequence[Wanted], *, factor: int) -> list[Reading | None]:
        """Return the tokens of each text, None where an excerpt of that size does not show so many for certain."""
        excerpts = [excerpt(one.text, factor * (one.count or 0), drops=one.drops) for one in wanted]
        located = self._tokenizer.encode_with_offsets(excerpts)
        if located is None:
            return [None] * len(wanted)
        return [_certain(*one) for one in zip(wanted, excerpts, located, strict=True)]


def is_long(text: str, tokens: int) -> bool:
    """Return whether a text is so long that reading only so many tokens of it pays."""
    return len(text) > 2 * window(tokens)


def window(tokens: int) -> int:
    """Return how many characters should hold so many tokens."""
    return CHARACTERS_PER_TOKEN * tokens + 2 * DOUBTFUL_CHARACTERS


def excerpt(text: str, tokens: int, *, drops: Side) -> str:
    """Return the end of a text at which tokens are kept, so much of it as should hold so many of them.

    It is cut at a space. Where there is none near by, the end is cut off anywhere, but no beginning: some tokenizers
    count off the digits of a long number from the left. There the whole text is its excerpt.
    """
    size = window(tokens)
    if drops == "right":
        return text[: next((place for place in range(size, min(2 * size, len(text))) if text[place].isspace()), size)]
    latest, earliest = len(text) - size, max(0, len(text) - 2 * size)
    return text[next((place for place in range(latest, earliest, -1) if text[place].isspace()), 0) :]


def shown(reading: Reading | RequestError) -> Reading:
    """Return what was read, or raise why it was not."""
    if isinstance(reading, RequestError):
        raise reading
    return reading


def pick(wanted: Sequence[Wanted] | RequestError, readings: Readings, index: int) -> list[Reading]:
    """Return what was read for the prompt at `index`, or raise why it cannot be run."""
    if isinstance(wanted, RequestError):
        raise wanted
    try:
        return [shown(readings[one]) for one in wanted]
    except RequestError as error:
        raise RequestError(f"Prompt {index}: {error}", param="input") from error


def _certain(wanted: Wanted, part: str, located: Encoding) -> Reading | None:
    """Return the wanted tokens if the part of the text shows them for certain."""
    count = wanted.count or 0
    places = _certain_places(located, part, drops=wanted.drops)
    if len(places) < count:
        return None
    kept = places[len(places) - count :] if wanted.drops == "left" else places[:count]
    return Reading([located.token_ids[place] for place in kept], is_whole=False)


def _certain_places(located: Encoding, part: str, *, drops: Side) -> list[int]:
    """Return which tokens of an excerpt are those of the whole text for certain."""
    tokens = list(enumerate(zip(located.offsets, located.word_ids, strict=True)))
    if not tokens:
        return []
    if drops == "right":
        last, end = located.word_ids[-1] - DOUBTFUL_WORDS, len(part) - DOUBTFUL_CHARACTERS
        return [place for place, ((_, stop), word) in tokens if word <= last and stop <= end]
    first = located.word_ids[0] + DOUBTFUL_WORDS
    return [place for place, ((start, _), word) in tokens if word >= first and start >= DOUBTFUL_CHARACTERS]


def _settle(
    wanted: Sequence[Wanted], read: Callable[[Sequence[Wanted]], Sequence[T]]
) -> dict[Wanted, T | RequestError]:
    """Return what `read` gives for each text; where it refuses some, those that it refuses fail alone."""
    if not wanted:
        return {}
    try:
        return dict(zip(wanted, read(wanted), strict=True))
    except RequestError as error:
        if len(wanted) == 1:
            return {wanted[0]: error}
        return {one: found for each in wanted for one, found in _settle([each], read).items()}
