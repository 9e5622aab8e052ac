"""The texts of a run, the same for everybody: docstrings, cut to MiniLM's maximum before anybody sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeAlias

from tokenizers import Tokenizer

from benchmarks.compare.models import MAX_TOKENS, Work
from benchmarks.docstrings import docstrings
from benchmarks.machine import location
from poolkit.config import DEFAULT_MODEL

__all__ = ["DOCUMENTS", "LOADS", "SHORT_WORDS", "Call", "Corpus", "make_corpus", "token_counts"]

SHORT_WORDS = 12
DOCUMENTS = 100
"""Of each query."""
BATCH = 8
"""Texts of a request of many."""
QUERY_CHARACTERS = 80

Call: TypeAlias = Mapping[str, object]
"""The arguments of one call: `texts` to embed, or a `query` and its `documents`."""

LOADS = ("12 words", "passage", "8 passages")
"""The kinds of requests that servers get."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The passages of a run, none of more than 256 tokens, and how many tokens each has."""

    passages: Sequence[str]
    tokens: Sequence[int]

    @property
    def short(self) -> Sequence[str]:
        """Texts of twelve words."""
        words = [word for passage in self.passages for word in passage.split() if word.isalpha()]
        return [
            " ".join(words[start : start + SHORT_WORDS]) for start in range(0, len(words) - SHORT_WORDS, SHORT_WORDS)
        ]

    def call(self, work: Work, size: int) -> Call:
        """Return a round's work: so many texts in one call, or queries with a hundred documents each."""
        if work == "embed":
            return {"texts": list(self.passages[:size])}
        queries = [text[:QUERY_CHARACTERS] for text in self.passages[:size]]
        documents = [
            list(self.passages[start : start + DOCUMENTS]) for start in range(size, size + size * DOCUMENTS, DOCUMENTS)
        ]
        return {"queries": queries, "documents": documents}

    def token_count(self, work: Work, size: int) -> int:
        """Return the tokens of the texts of `call(work, size)`, those of the documents where there are queries."""
        start, end = (0, size) if work == "embed" else (size, size + size * DOCUMENTS)
        return sum(self.tokens[start:end])

    def requests(self, load: str) -> Sequence[Sequence[str]]:
        """Return the inputs of requests of one kind, each of them a list of texts."""
        if load == "12 words":
            return [[text] for text in self.short]
        if load == "passage":
            return [[text] for text in self.passages]
        return [list(self.passages[start : start + BATCH]) for start in range(0, len(self.passages) - BATCH + 1, BATCH)]


def make_corpus(size: int) -> Corpus:
    """Return so many passages."""
    found = docstrings(size, token_counts=token_counts)
    tokenizer = _tokenizer()
    tokenizer.enable_truncation(MAX_TOKENS)
    passages = [
        text[: max(end for _, end in encoding.offsets)]
        for text, encoding in zip(found, tokenizer.encode_batch(found), strict=True)
    ]
    Random(0).shuffle(passages)  # noqa: S311 - the order keeps no secret
    return Corpus(passages, token_counts(passages))


def token_counts(texts: Sequence[str]) -> Sequence[int]:
    """Return MiniLM's tokens of each text, the special ones included."""
    return [len(encoding.ids) for encoding in _tokenizer().encode_batch(list(texts))]


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(Path(location(DEFAULT_MODEL)) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
