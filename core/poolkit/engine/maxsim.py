"""MaxSim, the score of late interaction: each query token's best similarity to any document token, added up.

One implementation for the engine, for what comes back from it as vectors, and for callers. (ColBERT,
https://arxiv.org/abs/2004.12832; the numbers are those of sentence-transformers' `maxsim`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from poolkit.contract import Segments
    from poolkit.engine.arrays import AnyArray, ArrayT

    Vectors: TypeAlias = NDArray[np.floating] | torch.Tensor

__all__ = ["EngineMaxsim", "compute_maxsim_score_batched", "maxsim"]

EngineMaxsim: TypeAlias = "Callable[[NDArray[Any], NDArray[Any], Segments], NDArray[Any]]"
"""Scores documents, in an engine that can (`Backbone.maxsim`)."""

NOTHING_TO_MATCH = -1e9
"""The score of a document without any vectors: below every other, and JSON can write it. sentence-transformers' own."""

ROWS_AT_A_TIME = 1 << 16
"""Document vectors that are laid end to end for one product: they are copied for it."""


def compute_maxsim_score_batched(queries: Sequence[Vectors], documents: Sequence[Vectors]) -> NDArray[np.float32]:
    """Return the MaxSim score of each query with the document at its place. (pairs,), float32

    Documents of one query are scored in one product, laid end to end and not padded: pass the same array for each.

        >>> import numpy as np
        >>> query = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> documents = [np.array([[0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])]
        >>> compute_maxsim_score_batched([query, query], documents)
        array([1.4, 1.5], dtype=float32)

    Args:
        queries: numpy arrays or torch tensors, (query tokens, dim) each, of any lengths.
        documents: one for each query, (document tokens, dim).

    Raises ValueError where there is not one document for each query.
    """
    import numpy as np

    from poolkit.contract import Segments
    from poolkit.engine.arrays import inference, operations_of

    if len(queries) != len(documents):
        raise ValueError(f"There are {len(queries)} queries and {len(documents)} documents; give one for each.")
    scores = np.empty(len(documents), np.float32)
    pairs_of_query: dict[int, list[int]] = {}
    for pair, query in enumerate(queries):
        pairs_of_query.setdefault(id(query), []).append(pair)
    with inference():
        for pairs in pairs_of_query.values():
            query = queries[pairs[0]]
            operations = operations_of(query)
            for portion in _portions(pairs, documents):
                rows = operations.concatenate([_like(documents[pair], query) for pair in portion])
                found = maxsim(query, rows, Segments.of([len(documents[pair]) for pair in portion]))
                [scores[portion]] = operations.to_numpy([found], np.float32)
    return scores


def maxsim(query: ArrayT, documents: ArrayT, segments: Segments, *, engine: EngineMaxsim | None = None) -> ArrayT:
    """Return the MaxSim score of each of some documents with one query, in float32. (documents,)

    Args:
        query: (query tokens, dim)
        documents: of all documents end to end, on the query's device. (document tokens, dim)
        segments: where each document lies. At least one.
        engine: scores the documents where they lie on the host.
    """
    from poolkit.engine.arrays import operations_of

    operations = operations_of(query)
    index = operations.segments(segments, query)
    scores: AnyArray = None if engine is None else _score_on_host(query, documents, segments, engine)
    if scores is None:
        similarities = operations.product(documents, query)  # (tokens, query tokens)
        best: AnyArray = operations.segment_max(similarities, index)  # (documents, query tokens)
        scores = best.sum(-1)
    counts: AnyArray = index.lengths
    return operations.where(counts > 0, scores, NOTHING_TO_MATCH)


def _score_on_host(query: AnyArray, documents: AnyArray, segments: Segments, engine: EngineMaxsim) -> AnyArray:
    """Return an engine's scores as the kind of array that the query is; None where that lies on a device."""
    import numpy as np

    if isinstance(query, np.ndarray):
        return engine(np.ascontiguousarray(query), np.ascontiguousarray(documents), segments)
    import torch

    if query.device.type != "cpu":
        return None
    return torch.from_numpy(engine(query.contiguous().numpy(), documents.contiguous().numpy(), segments))


def _portions(pairs: Sequence[int], documents: Sequence[Vectors]) -> Iterator[list[int]]:
    """Yield the pairs, some at a time."""
    portion: list[int] = []
    rows = 0
    for pair in pairs:
        if portion and rows + len(documents[pair]) > ROWS_AT_A_TIME:
            yield portion
            portion, rows = [], 0
        portion.append(pair)
        rows += len(documents[pair])
    yield portion


def _like(vectors: Vectors, query: Vectors) -> Vectors:
    """Return vectors as the kind of array that the query is."""
    import numpy as np

    if isinstance(query, np.ndarray):
        return vectors if isinstance(vectors, np.ndarray) else vectors.float().cpu().numpy()
    import torch

    return torch.from_numpy(vectors).to(query.device) if isinstance(vectors, np.ndarray) else vectors
