"""Pooling: pure functions from the hidden states of a flat batch to one vector per sequence, all in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from poolkit.models import PoolingMode

if TYPE_CHECKING:
    from poolkit.engine.passes.segments import Segments

__all__ = ["pool"]


def pool(hidden: torch.Tensor, segments: Segments, modes: Sequence[str]) -> torch.Tensor:
    """Return one vector per segment: what each mode makes of its token vectors, side by side.

    Args:
        hidden: (tokens, hidden)
        segments: where the sequences lie.
        modes: see sentence-transformers' Pooling module, whose arithmetic this is.

    Returns (sequences, modes * hidden), float32.
    """
    if segments.prompt_length is not None:
        hidden, segments = _leave_out(hidden, segments, segments.prompt_length)
    pooled = [POOL[mode](hidden, segments) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


def _leave_out(hidden: torch.Tensor, segments: Segments, prompt_length: torch.Tensor) -> tuple[torch.Tensor, Segments]:
    """Return the rows that are pooled, and where they lie; each keeps its place, by which a weighted mean weighs it."""
    is_pooled = segments.places >= prompt_length[segments.owners]  # (tokens,)
    lengths = segments.lengths - prompt_length
    kept = replace(
        segments,
        runs=(),
        lengths=lengths,
        ends=lengths.cumsum(0),
        owners=segments.owners[is_pooled],
        places=segments.places[is_pooled],
    )
    return hidden[is_pooled], kept


def _first(hidden: torch.Tensor, segments: Segments) -> torch.Tensor:
    return hidden[segments.starts].float()


def _last(hidden: torch.Tensor, segments: Segments) -> torch.Tensor:
    return hidden[segments.ends - 1].float()


def _max(hidden: torch.Tensor, segments: Segments) -> torch.Tensor:
    highest = torch.full((len(segments.lengths), hidden.shape[1]), -torch.inf, device=hidden.device)
    return highest.scatter_reduce(0, segments.owners[:, None].expand_as(hidden), hidden.float(), reduce="amax")


def _mean(hidden: torch.Tensor, segments: Segments) -> torch.Tensor:
    return _sum(hidden.float(), segments) / segments.lengths[:, None]


def _mean_sqrt_len(hidden: torch.Tensor, segments: Segments) -> torch.Tensor:
    return _sum(hidden.float(), segments) / segments.lengths[:, None].sqrt()


def _weighted_mean(hidden: torch.Tensor, segments: Segments) -> torch.Tensor:
    weights = (segments.places + 1)[:, None].float()  # (tokens, 1)
    return _sum(hidden.float() * weights, segments) / _sum(weights, segments)


def _sum(rows: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Add up each segment's rows. (tokens, dim) -> (sequences, dim)"""
    return rows.new_zeros(len(segments.lengths), rows.shape[1]).index_add_(0, segments.owners, rows)


POOL: dict[str, Callable[[torch.Tensor, Segments], torch.Tensor]] = {
    PoolingMode.CLS: _first,
    PoolingMode.LAST: _last,
    PoolingMode.MAX: _max,
    PoolingMode.MEAN: _mean,
    PoolingMode.MEAN_SQRT_LEN: _mean_sqrt_len,
    PoolingMode.WEIGHTED_MEAN: _weighted_mean,
}
