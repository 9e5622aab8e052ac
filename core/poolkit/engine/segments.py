"""Lays prompts of any lengths end to end in one flat batch: no padding, and no Python work per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Batch", "Run", "Segments", "lay_out"]


@dataclass(frozen=True, slots=True)
class Run:
    """Segments of one length that lie next to each other: a view, not a copy, makes a rectangle of them."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """One past the last token."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each sequence lies in a flat batch, shortest first.

    Attributes:
        runs: the segments, those of one length together.
        lengths: tokens of each segment. (sequences,)
        ends: one past each segment's last token. (sequences,)
        owners: the segment of each token. (tokens,)
        places: each token's place in its segment, from 0. (tokens,)
    """

    runs: tuple[Run, ...]
    lengths: torch.Tensor
    ends: torch.Tensor
    owners: torch.Tensor
    places: torch.Tensor
    _windows: dict[tuple[int, int, bool], torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def starts(self) -> torch.Tensor:
        """Each segment's first token. (sequences,)"""
        return self.ends - self.lengths

    def window(self, length: int, width: int, *, is_causal: bool) -> torch.Tensor:
        """Return which tokens of a segment see each other: those less than `width` apart. (length, length), bool

        Layers share the mask: it is built once a batch for each length.
        """
        key = (length, width, is_causal)
        if key not in self._windows:
            places = torch.arange(length, device=self.lengths.device)
            distance = places[:, None] - places[None, :]  # (length, length), query minus key
            sees = distance.abs() < width
            self._windows[key] = sees & (distance >= 0) if is_causal else sees
        return self._windows[key]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids end to end. (tokens,)"""

    token_ids: torch.Tensor
    segments: Segments


def lay_out(prompts: Sequence[Sequence[int]], *, device: torch.device) -> tuple[Batch, NDArray[np.intp]]:
    """Lay the token ids of some prompts end to end, shortest first.

    Returns the batch, and the place in it of each prompt: `rows[places]` is in prompt order.
    """
    unsorted = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))
    order = np.argsort(unsorted, kind="stable")
    lengths = unsorted[order]
    ends = np.cumsum(lengths)
    tokens, sequences = int(ends[-1]), len(prompts)

    # One array for everything, so that one copy takes it to the device.
    flat = np.empty(3 * tokens + 2 * sequences, dtype=np.int64)
    cuts = np.cumsum([tokens, tokens, tokens, sequences])
    token_ids, owners, places, on_lengths, on_ends = np.split(flat, cuts)
    token_ids[:] = np.fromiter(chain.from_iterable(prompts[i] for i in order), dtype=np.int64, count=tokens)
    owners[:] = np.repeat(np.arange(sequences), lengths)
    places[:] = np.arange(tokens) - (ends - lengths)[owners]
    on_lengths[:] = lengths
    on_ends[:] = ends
    parts = torch.tensor_split(torch.from_numpy(flat).to(device), cuts.tolist())

    place_of_prompt = np.empty_like(order)
    place_of_prompt[order] = np.arange(sequences)
    segments = Segments(_runs(lengths), owners=parts[1], places=parts[2], lengths=parts[3], ends=parts[4])
    return Batch(parts[0], segments), place_of_prompt


def _runs(lengths: NDArray[np.int64]) -> tuple[Run, ...]:
    runs = []
    start = 0
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        run = Run(start=start, count=int(count), length=int(length))
        runs.append(run)
        start = run.stop
    return tuple(runs)
