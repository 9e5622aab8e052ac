"""Offsets of a text's tokens, and the words they were made of apart from each other: the places to cut a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from poolkit.contract.encoder import Encoding

if TYPE_CHECKING:
    from tokenizers import Encoding as BackendEncoding
    from tokenizers import Tokenizer as Backend

__all__ = ["Locate", "fast_locator"]

SPACE = "▁"
"""The space, as the vocabularies of SentencePiece write it."""
TWO_WORDS = "a a"
ACROSS_A_SPACE = re.compile(f"[^{SPACE}]{SPACE}")


Locate: TypeAlias = Callable[[Sequence[str]], list[Encoding]]


def fast_locator(backend: Backend) -> Locate:
    """Return what locates the tokens of texts with a tokenizer of the Rust library."""
    splits = len(set(backend.encode(TWO_WORDS, add_special_tokens=False).word_ids)) > 1
    find_words = _pieces if splits else _whole_or_spaced(backend)

    def locate(texts: Sequence[str]) -> list[Encoding]:
        encodings = [backend.encode(text, add_special_tokens=False) for text in texts]  # in this thread
        return [
            Encoding(np.array(encoding.ids, np.int32), encoding.offsets, find_words(text, encoding))
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    return locate


def _pieces(_: str, encoding: BackendEncoding) -> list[int]:
    return [word for word in encoding.word_ids if word is not None]  # only special tokens have none


def _whole_or_spaced(backend: Backend) -> Callable[[str, BackendEncoding], list[int]]:
    """Return how words are told where the tokenizer makes the tokens of a whole text in one go.

    They are what stands between spaces where the vocabulary has no token with a space inside: then no token can reach
    from one word into the next, so that each has its tokens to itself. Otherwise the whole text is one word.
    """
    vocabulary = backend.get_vocab(with_added_tokens=False)
    has_spaces = any(token.startswith(SPACE) for token in vocabulary)
    return _spaced if has_spaces and not any(map(ACROSS_A_SPACE.search, vocabulary)) else _pieces


def _spaced(text: str, encoding: BackendEncoding) -> list[int]:
    begins = (start > 0 and text[start] == " " != text[start - 1] for start, _ in encoding.offsets)
    return list(accumulate(map(int, begins)))
