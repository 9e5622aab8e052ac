"""Queries and documents as prompts of their own: a query that stands in many pairs is read, run and counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import overload

import numpy as np
from numpy.typing import NDArray

from poolkit import PooledOutput, PoolingParams, TokenIds
from poolkit_tasks.scoring.pairs import Pairs, Text, change_params

__all__ = ["PairTokenIds", "Sides", "part"]


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The prompts of some pairs: the documents, so that a failure's index is theirs, then each different query once.

    Attributes:
        queries: each different one. The same text read in two ways is two queries.
        query_params: of each query.
        documents: of each pair.
        document_params: of each document.
        query_of: of each pair, the place of its query in `queries`. (pairs,)
    """

    queries: Sequence[Text]
    query_params: Sequence[PoolingParams]
    documents: Sequence[Text]
    document_params: Sequence[PoolingParams]
    query_of: NDArray[np.intp]

    @property
    def pairs_of(self) -> list[NDArray[np.intp]]:
        """The pairs that each query stands in."""
        order = np.argsort(self.query_of, kind="stable")
        counts = np.bincount(self.query_of, minlength=len(self.queries))
        return np.split(order, counts.cumsum())[:-1]

    @property
    def prompts(self) -> list[Text]:
        """Each document, then each query."""
        return [*self.documents, *self.queries]

    @property
    def params(self) -> list[PoolingParams]:
        """The parameters of each."""
        return [*self.document_params, *self.query_params]

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

    query_of: NDArray[np.intp]
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


def part(pairs: Pairs) -> Sides:
    """Return the two sides of some pairs."""
    of_queries = change_params(pairs.params, lambda params: replace(params, input_type="query"))
    of_documents = change_params(pairs.params, lambda params: replace(params, input_type="document"))
    params_of_id = {id(params): params for params in of_queries}
    keys = list(zip(pairs.queries, map(id, of_queries), strict=True))
    place_of = dict(zip(dict.fromkeys(keys), count(), strict=False))
    return Sides(
        queries=[query for query, _ in place_of],
        query_params=[params_of_id[number] for _, number in place_of],
        documents=pairs.documents,
        document_params=of_documents,
        query_of=np.fromiter(map(place_of.__getitem__, keys), np.intp, len(keys)),
    )
