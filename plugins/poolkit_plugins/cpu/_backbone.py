"""Runs flat batches in a packed encoder of poolkit-cpu-kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from poolkit import Batch, Decision, Segments, States

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from poolkit_cpu_kernels import Encoder, Kernels

__all__ = ["NativeBackbone"]


class NativeBackbone:
    """A model whose layers run in one native call, which releases the GIL.

    A prompt's states are the same bits in every batch, and `linear` and `maxsim` keep that.

    Args:
        kernels: the library.
        encoder: the model, packed.
        position_offset: the position id of a first token; models with one do not count padding tokens.
        takes_types: True if the model tells the texts of a pair apart by token types.
        num_streams: the cores that the kernels may use. Each stream runs its batch on one of them; what a long text
            or a lone batch leaves idle helps with it.
        decisions: for the start-up report.

    Attributes:
        efficient_tokens: about as many as a core takes through all layers at a time.
        shares_prefixes: True if a prompt may continue another. Its states are the same bits as those of the whole.
    """

    def __init__(
        self,
        kernels: Kernels,
        encoder: Encoder,
        *,
        position_offset: int,
        takes_types: bool,
        num_streams: int = 1,
        decisions: Sequence[Decision] = (),
    ) -> None:
        self.decisions = tuple(decisions)
        self.num_streams = num_streams
        self.efficient_tokens = 192
        self._kernels = kernels
        self._encoder = encoder
        self._position_offset = position_offset
        self._takes_types = takes_types
        self.shares_prefixes = encoder.is_causal and position_offset == 0

    def __call__(self, batch: Batch, /) -> States[NDArray[np.float32]]:
        """Return the last hidden state of each token."""
        seen = batch.attention_lengths
        if seen is not None:
            seen = np.minimum(seen, np.diff(batch.cu_seqlens)).astype(np.int32)
        hidden = self._encoder.run(
            batch.token_ids,
            batch.cu_seqlens,
            positions=_count_positions(batch, self._position_offset) if self._position_offset else None,
            types=batch.token_type_ids if self._takes_types else None,
            seen=seen,
            prefix=batch.prefixes,
        )
        return States(hidden)

    def linear(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return a linear layer of a head. weight: (outputs, inputs); bias: (outputs,)"""
        return self._kernels.linear(weight, bias).run

    def maxsim(
        self, query: NDArray[np.float32], documents: NDArray[np.float32], segments: Segments
    ) -> NDArray[np.float32]:
        """Return the MaxSim score of each document with a query. (documents,)"""
        return self._kernels.maxsim(query, documents, segments.cu_seqlens)

    def close(self) -> None:
        """Free the packed weights."""
        self._encoder.close()


def _count_positions(batch: Batch, offset: int) -> NDArray[np.int32]:
    """Return each token's position id as RoBERTa counts: from `offset`, which is pad_id + 1, on.

    Padding tokens inside a text are left out of the count, and get the position pad_id.
    """
    segments = batch.segments.arrays
    is_padding = batch.token_ids == offset - 1
    before = np.cumsum(is_padding) - is_padding  # padding tokens before each token, in the whole batch
    before_own = before - before[segments.starts][segments.segment_ids]  # in the token's own segment
    positions = np.where(is_padding, offset - 1, segments.positions - before_own + offset)
    return positions.astype(np.int32)
