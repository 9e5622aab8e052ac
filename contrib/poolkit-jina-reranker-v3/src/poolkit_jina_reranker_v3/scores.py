"""From vectors to scores: the cosine of each document's vector and the query's, over all blocks of documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["score"]

SMALLEST_NORM = 1e-8
"""As in torch's cosine_similarity: keeps a vector of zeros from making NaN."""
SMALLEST_WEIGHT = 1e-8
"""Keeps blocks whose documents all point away from the query from weighing nothing together."""


def score(blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the score of every document of one query, in order. (documents,)

    The query has a vector in each block. As in the model's own `rerank`, all documents are compared with the mean of
    these, each weighed by how well the block's best document fits: its cosine, moved from [-1, 1] to [0, 1].

    Args:
        blocks: of each block, the vectors of its documents and last that of the query. (documents + 1, dim) each
    """
    weights = [max(float((1 + _cosines(rows[:-1], rows[-1]).max()) / 2), SMALLEST_WEIGHT) for rows in blocks]
    query = np.average([rows[-1] for rows in blocks], axis=0, weights=weights).astype(np.float32)  # (dim,)
    return _cosines(np.concatenate([rows[:-1] for rows in blocks]), query)


def _cosines(documents: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each document and the query. (documents, dim), (dim,) -> (documents,)"""
    norms = np.maximum(np.linalg.norm(documents, axis=1), SMALLEST_NORM)
    cosines: NDArray[np.float32] = documents @ query / (norms * np.maximum(np.linalg.norm(query), SMALLEST_NORM))
    return cosines
