"""WordPiece by nanotoken, where that is installed and gives the very ids that the library `tokenizers` gives.

It is many times faster, and runs in the thread that calls it. Whether it agrees is seen at start-up, on texts that hold
characters of all kinds, words that the vocabulary has and words that it has not, and the special tokens.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

    from poolkit.contract import TokenIds

__all__ = ["EncodeTexts", "load_wordpiece"]

EncodeTexts: TypeAlias = Callable[[Sequence[str], bool], "list[TokenIds]"]
"""Returns the token ids of each text; the second argument says whether special tokens are added."""

CACHE_ENTRIES = 1 << 16
"""Words that each cache of nanotoken holds: by its own default it may take 130 MB for each thread."""

COMMON_CHARACTERS = 0x3100
"""The scripts with an alphabet lie before."""
OTHER_CHARACTERS = (*range(0x3100, 0xD800, 41), *range(0xE000, 0x30000, 97))
MIXED_TEXTS = 100
WORDS_OF_A_TEXT = 24
ODD_WORDS = (
    "x" * 300,
    "\u0130I\u0131\u00df",
    "\ufb01n",
    "e\u0301",
    "\u1100\u1161",
    "👩\u200d👩",
    "don't",
    "3.14",
    "a_b",
    "##ing",
    "[",
    "]",
    "\t",
    "\r\n",
    "\0",
)


def load_wordpiece(backend: Backend) -> EncodeTexts | str:
    """Return what makes the same token ids as `backend`; or why nothing does, for the start-up report."""
    if type(backend.model).__name__ != "WordPiece":
        return "it is no WordPiece"
    if find_spec("nanotoken") is None:
        return "nanotoken is not installed"
    import nanotoken

    if "NANOTOKEN_CACHE_ENTRIES" not in os.environ:
        nanotoken.set_cache_entries(CACHE_ENTRIES)
    try:
        tokenizer = nanotoken.Tokenizer.from_json(backend.to_str())
    except ValueError as error:  # UnsupportedTokenizerError is one
        return f"nanotoken cannot read it: {error}"

    def encode(texts: Sequence[str], add_special_tokens: bool) -> list[TokenIds]:
        rows = tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens, parallel=False)
        ids = rows.ids.view(np.int32)
        return [ids[start:end] for start, end in pairwise(rows.offsets.tolist())]

    return _disagreement(encode, backend) or encode


def _character_texts() -> Iterator[str]:
    """Yield texts of characters of all scripts, side by side and apart."""
    numbers = [*range(COMMON_CHARACTERS), *OTHER_CHARACTERS]
    for start in range(0, len(numbers), WORDS_OF_A_TEXT):
        characters = [chr(number) for number in numbers[start : start + WORDS_OF_A_TEXT]]
        yield "".join(characters)
        yield "a".join(characters)


def _mixed_texts(backend: Backend) -> Iterator[str]:
    """Yield texts of words that the vocabulary has, parts of such and others, with special tokens among them."""
    draw = random.Random(0)  # noqa: S311 - no secret
    vocabulary = sorted(backend.get_vocab(with_added_tokens=False))
    specials = sorted(token.content for token in backend.get_added_tokens_decoder().values())
    for _ in range(MIXED_TEXTS):
        words = draw.choices(vocabulary, k=WORDS_OF_A_TEXT)
        words += [word.upper() for word in draw.choices(vocabulary, k=4)] + draw.choices((*ODD_WORDS, *specials), k=4)
        words += ["".join(draw.choices(vocabulary, k=2)).replace("##", "")]
        draw.shuffle(words)
        yield draw.choice((" ", "", "  ", "-")).join(words)


def _disagreement(encode: EncodeTexts, backend: Backend) -> str | None:
    """Return what is reported where the token ids of some text differ; None where they agree."""
    mixed, characters = list(_mixed_texts(backend)), list(_character_texts())
    for texts, adds in ((["", *mixed], False), (["", *mixed, *characters], True)):
        expected = backend.encode_batch_fast(texts, add_special_tokens=adds)
        for text, encoding, ids in zip(texts, expected, encode(texts, adds), strict=True):
            if encoding.ids != ids.tolist():
                return f"nanotoken gives other ids than tokenizers for {text[:40]!r}"
    return None
