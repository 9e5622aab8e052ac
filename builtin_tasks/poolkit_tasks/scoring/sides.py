"""Queries and documents as prompts of their own: a query that stands in many pairs is read, run and counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poolkit import ImagePrompt, PooledOutput, PoolingParams
from poolkit_tasks.scoring.pairs import Pair

__all__ = ["Sides", "part"]


@dataclass(frozen=True, slots=True)
class Sides:
    """The prompts of some pairs: the documents, so that a failure's index is theirs, then each different query once.

    Attributes:
        queries: texts or images with their parameters. The same text read in two ways is two queries.
        documents: of each pair, with its parameters.
        query_of: of each pair, the place of its query in `queries`.
    """

    queries: tuple[tuple[str | ImagePrompt, PoolingParams], ...]
    documents: tuple[tuple[str | ImagePrompt, PoolingParams], ...]
    query_of: tuple[int, ...]

    @property
    def pairs_of(self) -> list[list[int]]:
        """The pairs that each query stands in."""
        pairs: list[list[int]] = [[] for _ in self.queries]
        for pair, query in enumerate(self.query_of):
            pairs[query].append(pair)
        return pairs

    @property
    def prompts(self) -> list[str | ImagePrompt]:
        """Each document, then each query."""
        return [prompt for prompt, _ in (*self.documents, *self.queries)]

    @property
    def params(self) -> list[PoolingParams]:
        """The parameters of each."""
        return [params for _, params in (*self.documents, *self.queries)]

    def split(self, outputs: Sequence[PooledOutput]) -> tuple[Sequence[PooledOutput], Sequence[PooledOutput]]:
        """Return the queries' outputs and the documents'."""
        return outputs[len(self.documents) :], outputs[: len(self.documents)]

    def prompt_token_ids(self, outputs: Sequence[PooledOutput]) -> list[list[int]]:
        """Return what ran through the model for each pair: its query's tokens and its document's."""
        queries, documents = self.split(outputs)
        return [
            [*queries[query].prompt_token_ids.tolist(), *document.prompt_token_ids.tolist()]
            for query, document in zip(self.query_of, documents, strict=True)
        ]


def part(pairs: Sequence[Pair]) -> Sides:
    """Return the two sides of some pairs."""
    queries: dict[tuple[str | ImagePrompt, PoolingParams], int] = {}
    query_of = [
        queries.setdefault((pair.query, replace(pair.params, input_type="query")), len(queries)) for pair in pairs
    ]
    documents = tuple((pair.document, replace(pair.params, input_type="document")) for pair in pairs)
    return Sides(tuple(queries), documents, tuple(query_of))
