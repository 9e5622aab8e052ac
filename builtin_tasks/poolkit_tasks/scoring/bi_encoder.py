"""Scores by one vector for each text: how near a document's is to its query's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from poolkit import PooledOutput, PoolingParams, Prepared
from poolkit_tasks.scoring.pairs import Pairs, ScoringRequest, change_params
from poolkit_tasks.scoring.processors import Scored, ScoringIOProcessor
from poolkit_tasks.scoring.sides import Sides, part

__all__ = ["BiEncoderIOProcessor"]

Array: TypeAlias = NDArray[np.float32]

SMALLEST_NORM = 1e-12
"""The least length that torch's `normalize` divides by."""


class BiEncoderIOProcessor(ScoringIOProcessor):
    """Embeds each text once and compares queries with documents as the model's files say, by cosine without them."""

    never_blocks = True

    def prepare(self, pairs: Pairs, request: ScoringRequest) -> Prepared:
        """Return the documents, then the queries."""
        self.refuse_instruction(request)
        sides = part(replace(pairs, params=change_params(pairs.params, self._as_trained)))
        return Prepared(sides.prompts, sides.params, sides, outputs_map_to_inputs=False)

    def score(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> Scored:
        """Return the similarities: one product for each query."""
        sides = cast("Sides", prepared.state)
        queries, documents = sides.split(outputs)
        # What a multi-vector model's files say holds for its token vectors.
        compare = SIMILARITIES.get(self.context.model.vector.similarity, _cosine)
        scores = np.empty(len(documents), np.float32)
        if documents:
            vectors = np.concatenate([document.data for document in documents]).reshape(len(documents), -1)
            for query, pairs in zip(queries, sides.pairs_of, strict=True):
                scores[pairs] = compare(query.data, vectors[pairs])
        return Scored(scores, sides.prompt_token_ids(outputs))

    def _as_trained(self, params: PoolingParams) -> PoolingParams:
        """Leave vectors as long as the model makes them where the similarity depends on that, unless somebody asked."""
        model = self.context.model
        wishes = (params.use_activation, model.config.pooler_config.use_activation)
        if model.vector.similarity == "cosine" or wishes != (None, None):
            return params
        return replace(params, use_activation=model.pooling.normalizes)


def _cosine(query: Array, documents: Array) -> Array:
    return _dot(_normalize(query), _normalize(documents))


def _dot(query: Array, documents: Array) -> Array:
    return documents @ query


def _euclidean(query: Array, documents: Array) -> Array:
    distances: Array = np.linalg.norm(documents - query, axis=1)
    return -distances


def _manhattan(query: Array, documents: Array) -> Array:
    distances: Array = np.abs(documents - query).sum(axis=1)
    return -distances


def _normalize(rows: Array) -> Array:
    normalized: Array = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), SMALLEST_NORM)
    return normalized


SIMILARITIES: Mapping[str, Callable[[Array, Array], Array]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
"""By sentence-transformers' names; a distance counts negative, so that nearer is higher. (dim,), (n, dim) -> (n,)"""
