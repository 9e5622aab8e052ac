"""Runs a flat batch as padded rows, whatever library runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolkit import Batch, Decision, States

__all__ = ["PaddedBackbone", "RunRows"]

RunRows: TypeAlias = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
"""Runs `input_ids`, `attention_mask` and what else the model takes, (rows, longest) each. (rows, longest, dim)"""


class PaddedBackbone:
    """Pads a batch's prompts on the right, so many rows at a time that they hold at most `max_tokens`.

    Args:
        run: runs padded rows, from any thread.
        pad_token_id: fills up `input_ids`.
        takes_types: True if the model tells the texts of a pair apart by token types.
        max_tokens: tokens of one pass, padding included.
        decisions: for the start-up report.
    """

    def __init__(
        self, run: RunRows, *, pad_token_id: int, takes_types: bool, max_tokens: int, decisions: Sequence[Decision] = ()
    ) -> None:
        self.decisions = tuple(decisions)
        self._run = run
        self._pad_token_id = pad_token_id
        self._takes_types = takes_types
        self._max_tokens = max_tokens

    def __call__(self, batch: Batch, /) -> States[NDArray[np.float32]]:
        """Return the last hidden state of each token."""
        return States(np.concatenate([self._run_block(batch, *block) for block in self._blocks(batch)]))

    def _blocks(self, batch: Batch) -> Iterator[tuple[int, int]]:
        """Yield the ranges of prompts that run together. Prompts come shortest first, so the last is the longest."""
        sizes = batch.segments.sizes
        first = 0
        while first < len(sizes):
            last = first + 1
            while last < len(sizes) and (last + 1 - first) * sizes[last] <= self._max_tokens:
                last += 1
            yield first, last
            first = last

    def _run_block(self, batch: Batch, first: int, last: int) -> NDArray[np.float32]:
        segments = batch.segments.arrays
        start, stop = int(batch.cu_seqlens[first]), int(batch.cu_seqlens[last])
        row, column = segments.segment_ids[start:stop] - first, segments.positions[start:stop]
        shape = (last - first, int(segments.lengths[last - 1]))
        attended = segments.lengths if batch.attention_lengths is None else batch.attention_lengths
        types = np.zeros_like(batch.token_ids) if batch.token_type_ids is None else batch.token_type_ids

        def pad(tokens: NDArray[np.int32], padding: int) -> NDArray[np.int64]:
            padded = np.full(shape, padding, np.int64)  # (rows, longest)
            padded[row, column] = tokens[start:stop]
            return padded

        rows = {
            "input_ids": pad(batch.token_ids, self._pad_token_id),
            "attention_mask": (np.arange(shape[1]) < attended[first:last, None]).astype(np.int64),
        }
        if self._takes_types:
            rows["token_type_ids"] = pad(types, 0)
        hidden: NDArray[np.float32] = self._run(rows)[row, column]  # (tokens, dim)
        return hidden
