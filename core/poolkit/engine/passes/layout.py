"""Lays prompts of any lengths end to end in one flat batch, shortest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from poolkit.engine.passes.segments import Batch, Run, Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import EncodedPrompt

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
    owners = np.repeat(np.arange(sequences), lengths)
    columns = {
        "token_ids": np.concatenate([prompts[i].token_ids for i in order]),
        "owners": owners,
        "places": np.arange(tokens) - (ends - lengths)[owners],
        "lengths": lengths,
        "ends": ends,
        "queries": np.fromiter((prompts[i].is_query for i in order), dtype=np.int64, count=sequences),
    }
    if takes_types and any(prompt.token_type_ids is not None for prompt in prompts):
        no_types = np.zeros(int(lengths[-1]), np.int32)
        types = [no_types[: unsorted[i]] if (own := prompts[i].token_type_ids) is None else own for i in order]
        columns["token_type_ids"] = np.concatenate(types)
    if any(prompt.attention_length is not None for prompt in prompts):
        attended = np.array([prompt.attention_length or len(prompt.token_ids) for prompt in prompts])
        columns["attended"] = attended[order]
    if any(prompt.prompt_length for prompt in prompts):
        columns["prompt_length"] = np.fromiter(
            (prompts[i].prompt_length for i in order), dtype=np.int64, count=sequences
        )
    # One array for everything, so that one copy takes it to the device.
    flat = torch.from_numpy(np.concatenate(list(columns.values()), dtype=np.int64, casting="same_kind")).to(device)
    cuts = np.cumsum([len(column) for column in columns.values()])[:-1]
    parts = dict(zip(columns, torch.tensor_split(flat, cuts.tolist()), strict=True))

    place_of_prompt = np.empty_like(order)
    place_of_prompt[order] = np.arange(sequences)
    segments = Segments(
        _runs(lengths, columns.get("attended", lengths)),
        owners=parts["owners"],
        places=parts["places"],
        lengths=parts["lengths"],
        ends=parts["ends"],
        attended=parts.get("attended"),
        prompt_length=parts.get("prompt_length"),
    )
    batch = Batch(parts["token_ids"], segments, parts["queries"], parts.get("token_type_ids"))
    return batch, place_of_prompt


def _runs(lengths: NDArray[np.int64], attended: NDArray[np.int64]) -> tuple[Run, ...]:
    runs = []
    start = first = 0
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        is_attended = bool((attended[first : first + count] >= length).all())
        run = Run(start=start, count=int(count), length=int(length), first=first, is_attended=is_attended)
        runs.append(run)
        start, first = run.stop, first + run.count
    return tuple(runs)
