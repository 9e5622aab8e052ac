"""Queries and documents as prompts of their own: a query that stands in many pairs is read, run and counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from poolkit import ModalityPrompt, PooledOutput, PoolingParams, TokenIds
from poolkit_tasks.scoring.pairs import Pair

__all__ = ["PairTokenIds", "Sides", "part"]


@dataclass(frozen=True, slots=True)
class Sides:
    """The prompts of some pairs: the documents, so that a failure's index is theirs, then each different query once.

    Attributes:
        queries: texts or other prompts with their parameters. The same text read in two ways is two queries.
        documents: of each pair, with its parameters.
        query_of: of each pair, the place of its query in `queries`.
    """

    queries: tuple[tuple[str | ModalityPrompt, PoolingParams], ...]
    documents: tuple[tuple[str | ModalityPrompt, PoolingParams], ...]
    query_of: tuple[int, ...]

    @property
    def pairs_of(self) -> list[list[int]]:
        """The pairs that each query stands in."""
        pairs: list[list[int]] = [[] for _ in self.queries]
        for pair, query in enumerate(self.query_of):
            pairs[query].append(pair)
        return pairs

    @property
    def prompts(self) -> list[str | ModalityPrompt]:
        """Each document, then each query."""
        return [prompt for prompt, _ in (*self.documents, *self.queries)]

    @property
    def params(self) -> list[PoolingParams]:
        """The parameters of each."""
        return [params for _, params in (*self.documents, *self.queries)]

    def split(self, outputs: Sequence[PooledOutput]) -> tuple[Sequence[PooledOutput], Sequence[PooledOutput]]:
        """Return the queries' outputs and the documents'."""
        return outputs[len(self.documents) :], outputs[: len(self.documents)]

    def prompt_token_ids(self, outputs: Sequence[PooledOutput]) -> PairTokenIds:
        """Return the tokens that ran through the model for each pair."""
        queries, documents = self.split(outputs)
        return PairTokenIds(self.query_of, queries, documents)


@dataclass(frozen=True, slots=True, eq=False)
class PairTokenIds(Sequence[TokenIds]):
    """For each pair the tokens of its query and of its document, joined only when they are read.

    Over HTTP nobody reads them, and a query may stand in a thousand pairs.
    """

    query_of: Sequence[int]
    queries: Sequence[PooledOutput]
    documents: Sequence[PooledOutput]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.query_of)

    @overload
    def __getitem__(self, pair: int) -> TokenIds: ...
    @overload
    def __getitem__(self, pair: slice) -> list[TokenIds]: ...
    def __getitem__(self, pair: int | slice) -> TokenIds | list[TokenIds]:
        """Return the tokens of a pair. (tokens,), int32"""
        if isinstance(pair, slice):
            return [self[each] for each in range(*pair.indices(len(self)))]
        query, document = self.queries[self.query_of[pair]], self.documents[pair]
        return np.concatenate([query.prompt_token_ids, document.prompt_token_ids])


def part(pairs: Sequence[Pair]) -> Sides:
    """Return the two sides of some pairs."""
    queries: dict[tuple[str | ModalityPrompt, PoolingParams], int] = {}
    query_of = [
        queries.setdefault((pair.query, replace(pair.params, input_type="query")), len(queries)) for pair in pairs
    ]
    documents = tuple((pair.document, replace(pair.params, input_type="document")) for pair in pairs)
    return Sides(tuple(queries), documents, tuple(query_of))
