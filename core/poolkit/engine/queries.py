"""Late interaction in the engine: queries wait here for their documents, of which only the scores leave."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from poolkit.contract import LateInteractionParams, Segments
from poolkit.engine.arrays import AnyArray, ArrayT, operations_of
from poolkit.engine.maxsim import EngineMaxsim, maxsim

__all__ = ["QueryStore", "ScoredDocuments"]


SPAN_PER_ROW = 1.25
"""Documents with others between them are scored with these where no more than a quarter is added: nothing is copied."""


@dataclass(slots=True)
class _Query(Generic[ArrayT]):
    vectors: ArrayT
    uses_left: int | None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredDocuments(Generic[ArrayT]):
    """Documents of a batch that were scored with one query.

    Attributes:
        query_key: names the query.
        prompts: the documents' places in the batch.
        scores: of each of them. (documents,)
    """

    query_key: str
    prompts: Sequence[int]
    scores: ArrayT


class QueryStore(Generic[ArrayT]):
    """The token vectors of queries where the engine left them, by key, until the last use or release. One per model.

    Args:
        maxsim: the engine's own, for documents on the host.
    """

    def __init__(self, maxsim: EngineMaxsim | None = None) -> None:
        self._maxsim = maxsim
        self._queries: dict[str, _Query[ArrayT]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many queries are kept."""
        return len(self._queries)

    def score(
        self, params: Sequence[LateInteractionParams | None], rows: Sequence[ArrayT], segments: Segments
    ) -> list[ScoredDocuments[ArrayT]]:
        """Score the documents of a batch whose query is kept, after keeping the batch's own queries.

        Args:
            params: of each prompt.
            rows: for each prompt, the array that its vectors lie in, activated: mostly one for all. (tokens, dim) each
            segments: where each prompt's vectors lie in its array.
        """
        prompts_of: dict[tuple[str, int], list[int]] = {}
        for index, wanted in enumerate(params):
            if wanted is None:
                continue
            if wanted.mode == "cache_query":
                start, stop = segments.cu_seqlens[index : index + 2].tolist()
                vectors: AnyArray = rows[index]
                copied = operations_of(rows[index]).copy(vectors[start:stop])
                with self._lock:
                    self._queries[wanted.query_key] = _Query(copied, wanted.query_uses)
            else:
                prompts_of.setdefault((wanted.query_key, id(rows[index])), []).append(index)
        scored = []
        for (key, _), prompts in prompts_of.items():
            query = self._queries.get(key)
            if query is not None:
                scores = self._score(query.vectors, rows[prompts[0]], segments, prompts)
                scored.append(ScoredDocuments(key, prompts, scores))
        return scored

    def _score(self, query: ArrayT, rows: ArrayT, segments: Segments, prompts: Sequence[int]) -> ArrayT:
        """Return the scores of some prompts: of their vectors where they lie, if these are not too far apart."""
        operations, lengths = operations_of(rows), segments.arrays.lengths
        is_document = np.zeros(len(segments), np.bool_)
        is_document[prompts] = True
        first, last = prompts[0], prompts[-1] + 1
        start, stop = segments.cu_seqlens[first], segments.cu_seqlens[last]
        if stop - start > SPAN_PER_ROW * lengths[is_document].sum():
            vectors = operations.select(rows, np.repeat(is_document, lengths))
            return maxsim(query, vectors, Segments.of(lengths[is_document]), engine=self._maxsim)
        span: AnyArray = rows
        scores = maxsim(query, span[start:stop], Segments.of(lengths[first:last]), engine=self._maxsim)
        return scores if len(prompts) == last - first else operations.select(scores, is_document[first:last])

    def count_uses(self, scored: Sequence[ScoredDocuments[ArrayT]]) -> None:
        """Forget queries after their last use. A batch that fails, and runs again, counts once."""
        with self._lock:
            for documents in scored:
                query = self._queries.get(documents.query_key)
                if query is not None and query.uses_left is not None:
                    query.uses_left -= len(documents.prompts)
                    if query.uses_left <= 0:
                        del self._queries[documents.query_key]

    def release(self, keys: Iterable[str]) -> None:
        """Forget queries that will not be used any more; some of them may be gone already."""
        with self._lock:
            for key in keys:
                self._queries.pop(key, None)

    def clear(self) -> None:
        """Forget all queries."""
        with self._lock:
            self._queries.clear()
