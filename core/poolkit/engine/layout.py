"""Lays prompts of any lengths end to end in one flat batch, shortest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

from poolkit.engine.segments import Batch, Run, Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.engine.protocol import EncodedPrompt

__all__ = ["lay_out"]


def lay_out(
    prompts: Sequence[EncodedPrompt], *, device: torch.device, takes_types: bool = False
) -> tuple[Batch, NDArray[np.intp]]:
    """Lay the tokens of some prompts end to end, shortest first, with their types for a model that takes them.

    Returns the batch, and the place in it of each prompt: `rows[places]` is in prompt order.
    """
    unsorted = np.fromiter((len(prompt.token_ids) for prompt in prompts), dtype=np.int64, count=len(prompts))
    order = np.argsort(unsorted, kind="stable")
    lengths = unsorted[order]
    ends = np.cumsum(lengths)
    tokens, sequences = int(ends[-1]), len(prompts)
    has_types = takes_types and any(prompt.token_type_ids is not None for prompt in prompts)

    # One array for everything, so that one copy takes it to the device.
    flat = np.empty((3 + has_types) * tokens + 2 * sequences, dtype=np.int64)
    cuts = np.cumsum([tokens, tokens, tokens, sequences, sequences])
    token_ids, owners, places, on_lengths, on_ends, types = np.split(flat, cuts)
    token_ids[:] = _end_to_end((prompts[i].token_ids for i in order), tokens)
    owners[:] = np.repeat(np.arange(sequences), lengths)
    places[:] = np.arange(tokens) - (ends - lengths)[owners]
    on_lengths[:] = lengths
    on_ends[:] = ends
    if has_types:
        types[:] = _end_to_end((prompts[i].token_type_ids or (0,) * unsorted[i] for i in order), tokens)
    parts = torch.tensor_split(torch.from_numpy(flat).to(device), cuts.tolist())

    place_of_prompt = np.empty_like(order)
    place_of_prompt[order] = np.arange(sequences)
    segments = Segments(_runs(lengths), owners=parts[1], places=parts[2], lengths=parts[3], ends=parts[4])
    return Batch(parts[0], segments, parts[5] if has_types else None), place_of_prompt


def _end_to_end(rows: Iterable[Sequence[int]], tokens: int) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=tokens)


def _runs(lengths: NDArray[np.int64]) -> tuple[Run, ...]:
    runs = []
    start = 0
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        run = Run(start=start, count=int(count), length=int(length))
        runs.append(run)
        start = run.stop
    return tuple(runs)
