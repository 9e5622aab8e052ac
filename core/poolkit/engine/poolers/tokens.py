"""A row for each token: hidden states, projected by the model's layers, and the choice of those that are answered.

A multi-vector model leaves out the tokens of its skiplist, punctuation mostly, in the texts that the list is for. Their
rows go before anything leaves the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from poolkit.contract import MultiVectorSpec, PooledRows, Segments
from poolkit.engine.arrays import operations_of
from poolkit.engine.poolers.layers import Layers, queries_of_tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from poolkit.contract import Batch, States
    from poolkit.engine.arrays import ArrayT

__all__ = ["TokenPooler"]


class TokenPooler:
    """Gives the rows of a prompt's tokens.

    Args:
        layers: applied to each token's vector.
        spec: which tokens of a multi-vector model are answered.
        skipped: the token ids of its skiplist.
    """

    def __init__(
        self, *, layers: Layers | None = None, spec: MultiVectorSpec | None = None, skipped: Sequence[int] = ()
    ) -> None:
        self._layers = layers or Layers()
        self._spec = spec
        self._skipped = skipped

    def __call__(self, states: States[ArrayT], batch: Batch, /) -> PooledRows[ArrayT]:
        """Return the rows that each prompt answers."""
        hidden, segments = states.tokens, states.segments
        assert hidden is not None
        assert segments is not None
        rows = self._layers(hidden, partial(queries_of_tokens, hidden, segments, batch))
        if self._spec is None or not (self._skipped or self._spec.kept_token_ids):
            return PooledRows(rows, segments.sizes)
        is_answered = self._is_answered(self._spec, batch)
        return PooledRows(operations_of(rows).select(rows, is_answered), _count(is_answered, batch.segments))

    def _is_answered(self, spec: MultiVectorSpec, batch: Batch) -> NDArray[np.bool_]:
        """Return which tokens answer their vector. (tokens,)"""
        import numpy as np

        is_query = batch.is_query[batch.segments.arrays.segment_ids]
        is_answered: NDArray[np.bool_] = np.ones_like(is_query)
        if self._skipped:
            in_query, in_document = ("query" in spec.skips_in), ("document" in spec.skips_in)
            is_listed = np.isin(batch.token_ids, self._skipped)
            is_answered &= ~(is_listed & np.where(is_query, in_query, in_document))
        if spec.kept_token_ids:
            is_answered &= is_query | np.isin(batch.token_ids, spec.kept_token_ids)
        return is_answered


def _count(is_answered: NDArray[np.bool_], segments: Segments) -> list[int]:
    import numpy as np

    counts: Any = np.bincount(segments.arrays.segment_ids[is_answered], minlength=len(segments))
    return list(counts.tolist())
