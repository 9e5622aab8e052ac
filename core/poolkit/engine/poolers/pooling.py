"""Pooling: from the hidden states of a flat batch to one vector per prompt, all in float32.

The arithmetic is that of sentence-transformers' Pooling module. Each mode is an entry `pooling.<name>` of group
`poolkit.models`: a function of the token vectors (tokens, hidden) and of where each prompt's lie to (prompts, hidden).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from poolkit.contract import PoolingMode, SegmentArrays
from poolkit.engine.arrays import AnyArray, ArrayT, operations_of

if TYPE_CHECKING:
    from poolkit.contract import Batch, Segments

__all__ = [
    "POOL",
    "Pool",
    "pool",
    "pool_cls",
    "pool_last",
    "pool_max",
    "pool_mean",
    "pool_mean_sqrt_len",
    "pool_weighted_mean",
]

Pool: TypeAlias = Callable[[AnyArray, SegmentArrays[AnyArray]], AnyArray]
"""Pools the token vectors of each prompt."""


def pool(hidden: ArrayT, segments: Segments, batch: Batch, modes: Sequence[Pool]) -> ArrayT:
    """Return one vector per prompt: what each mode makes of its token vectors, side by side.

    Args:
        hidden: (tokens, hidden)
        segments: where each prompt's rows lie.
        batch: says which leading tokens are left out.
        modes: how.

    Returns (prompts, modes * hidden), float32.
    """
    operations = operations_of(hidden)
    rows, arrays = hidden, operations.segments(segments, hidden)
    if batch.prompt_lengths is not None:
        rows, arrays = _leave_out(hidden, arrays, operations.batch(batch, hidden).prompt_lengths)
    pooled = [mode(rows, arrays) for mode in modes]
    return operations.concatenate(pooled, axis=1) if len(pooled) > 1 else pooled[0]


def pool_cls(hidden: AnyArray, segments: SegmentArrays[AnyArray]) -> AnyArray:
    """Return the first token's vector."""
    return operations_of(hidden).float32(hidden[segments.starts])


def pool_last(hidden: AnyArray, segments: SegmentArrays[AnyArray]) -> AnyArray:
    """Return the last token's vector."""
    return operations_of(hidden).float32(hidden[segments.ends - 1])


def pool_max(hidden: AnyArray, segments: SegmentArrays[AnyArray]) -> AnyArray:
    """Return the largest of each column."""
    operations = operations_of(hidden)
    return operations.segment_max(operations.float32(hidden), segments)


def pool_mean(hidden: AnyArray, segments: SegmentArrays[AnyArray]) -> AnyArray:
    """Return the mean of the tokens' vectors."""
    operations = operations_of(hidden)
    lengths = operations.float32(segments.lengths[:, None])
    return operations.segment_sum(operations.float32(hidden), segments) / lengths


def pool_mean_sqrt_len(hidden: AnyArray, segments: SegmentArrays[AnyArray]) -> AnyArray:
    """Return the sum of the tokens' vectors, divided by the square root of their number."""
    operations = operations_of(hidden)
    lengths = operations.float32(segments.lengths[:, None])
    return operations.segment_sum(operations.float32(hidden), segments) / lengths**0.5


def pool_weighted_mean(hidden: AnyArray, segments: SegmentArrays[AnyArray]) -> AnyArray:
    """Return the mean of the tokens' vectors, weighed by their places, from 1."""
    operations = operations_of(hidden)
    weights = operations.float32(segments.positions[:, None] + 1)  # (tokens, 1)
    rows = operations.float32(hidden) * weights
    return operations.segment_sum(rows, segments) / operations.segment_sum(weights, segments)


def _leave_out(
    hidden: AnyArray, segments: SegmentArrays[AnyArray], prompt_lengths: AnyArray
) -> tuple[AnyArray, SegmentArrays[AnyArray]]:
    """Return the rows that are pooled, and where they lie; each keeps its position, by which it may be weighed."""
    is_pooled = segments.positions >= prompt_lengths[segments.segment_ids]  # (tokens,)
    lengths = segments.lengths - prompt_lengths
    ends = lengths.cumsum(0)
    kept = SegmentArrays(lengths, ends - lengths, ends, segments.segment_ids[is_pooled], segments.positions[is_pooled])
    return hidden[is_pooled], kept


POOL: Mapping[str, Pool] = {
    PoolingMode.CLS: pool_cls,
    PoolingMode.LAST: pool_last,
    PoolingMode.MAX: pool_max,
    PoolingMode.MEAN: pool_mean,
    PoolingMode.MEAN_SQRT_LEN: pool_mean_sqrt_len,
    PoolingMode.WEIGHTED_MEAN: pool_weighted_mean,
}
"""The modes that core brings, by name."""
