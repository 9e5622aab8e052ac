"""Late interaction in the engine: queries wait here for their documents, of which only the scores leave."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from poolkit.contract import LateInteractionParams
from poolkit.engine.arrays import AnyArray, ArrayT, operations_of
from poolkit.engine.maxsim import maxsim

__all__ = ["QueryStore"]


@dataclass(slots=True)
class _Query(Generic[ArrayT]):
    vectors: ArrayT
    uses_left: int | None


class QueryStore(Generic[ArrayT]):
    """The token vectors of queries where the engine left them, by key, until the last use or release. One per model."""

    def __init__(self) -> None:
        self._queries: dict[str, _Query[ArrayT]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many queries are kept."""
        return len(self._queries)

    def score(
        self, params: Sequence[LateInteractionParams | None], vectors: Sequence[ArrayT]
    ) -> tuple[list[ArrayT], dict[str, int]]:
        """Score the documents of a batch whose query is kept, after keeping the batch's own queries.

        Args:
            params: of each prompt.
            vectors: of each prompt, activated. (tokens, dim) each

        Returns what leaves the engine for each prompt, a document's score (1,) or else its vectors; and how many
        documents were scored with each query, for `count_uses`.
        """
        results = list(vectors)
        documents_of_key: dict[str, list[int]] = {}
        for index, wanted in enumerate(params):
            if wanted is None:
                continue
            if wanted.mode == "cache_query":
                copied = operations_of(vectors[index]).copy(vectors[index])
                with self._lock:
                    self._queries[wanted.query_key] = _Query(copied, wanted.query_uses)
            else:
                documents_of_key.setdefault(wanted.query_key, []).append(index)
        uses = {}
        for key, documents in documents_of_key.items():
            query = self._queries.get(key)
            if query is None:
                continue
            uses[key] = len(documents)
            scores: AnyArray = maxsim(query.vectors, [vectors[index] for index in documents])  # (documents,)
            for place, index in enumerate(documents):
                results[index] = scores[place : place + 1]
        return results, uses

    def count_uses(self, uses: Mapping[str, int]) -> None:
        """Forget queries after their last use. A batch that fails, and runs again, counts once."""
        with self._lock:
            for key, documents in uses.items():
                query = self._queries.get(key)
                if query is not None and query.uses_left is not None:
                    query.uses_left -= documents
                    if query.uses_left <= 0:
                        del self._queries[key]

    def release(self, keys: Iterable[str]) -> None:
        """Forget queries that will not be used any more; some of them may be gone already."""
        with self._lock:
            for key in keys:
                self._queries.pop(key, None)

    def clear(self) -> None:
        """Forget all queries."""
        with self._lock:
            self._queries.clear()
