"""One vector per prompt, pooled from its tokens or by the model itself, then projected by the model's layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from poolkit.contract import PooledRows
from poolkit.engine.arrays import operations_of
from poolkit.engine.poolers.layers import Layers, queries_of_tokens
from poolkit.engine.poolers.pooling import Pool, pool

if TYPE_CHECKING:
    from poolkit.contract import Batch, States
    from poolkit.engine.arrays import ArrayT

__all__ = ["VectorPooler"]


class VectorPooler:
    """Pools the vectors of a prompt's tokens, unless the model has done so itself.

    Args:
        modes: how, side by side.
        token_layers: applied to each token's vector before.
        layers: applied to each prompt's vector after.
    """

    def __init__(
        self, modes: Sequence[Pool], *, token_layers: Layers | None = None, layers: Layers | None = None
    ) -> None:
        self._modes = modes
        self._token_layers = token_layers
        self._layers = layers or Layers()

    def __call__(self, states: States[ArrayT], batch: Batch, /) -> PooledRows[ArrayT]:
        """Return one row for each prompt."""
        rows = self._pool(states, batch) if states.rows is None else states.rows
        operations = operations_of(rows)

        def is_query() -> ArrayT:
            return operations.batch(batch, rows).is_query

        return PooledRows(self._layers(rows, is_query))

    def _pool(self, states: States[ArrayT], batch: Batch) -> ArrayT:
        hidden, segments = states.tokens, states.segments
        assert hidden is not None
        assert segments is not None
        if self._token_layers is not None:
            hidden = self._token_layers(hidden, partial(queries_of_tokens, hidden, segments, batch))
        return pool(hidden, segments, batch, self._modes)
