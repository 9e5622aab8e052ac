"""From a batch's raw outputs to each prompt's answer: cut, activated, as numpy, in prompt order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch.nn.functional import normalize

from poolkit.contract import Activation, PooledOutput
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.engine.head import Pooled
    from poolkit.engine.protocol import EncodedPrompt

__all__ = ["Raw", "Wish", "answer", "gather"]

Wish: TypeAlias = tuple[int | None, bool]
"""The dimensions to keep (None: all), and whether to activate."""

ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.IDENTITY: lambda rows: rows,
    Activation.NORMALIZE: lambda rows: normalize(rows, dim=-1),
    Activation.SOFTMAX: lambda rows: rows.softmax(dim=-1),
    Activation.SIGMOID: torch.sigmoid,
    Activation.LOG1P_RELU: lambda rows: rows.relu().log1p(),
}


@dataclass(frozen=True, slots=True)
class Raw:
    """What a head made of a batch, sequence after sequence.

    Attributes:
        rows: float32. (rows, dim)
        sizes: how many rows each sequence has; None where each has one, which is then answered as a vector.
        parts: what else a task's head gave, for each sequence; () where it gave nothing else.
    """

    rows: torch.Tensor
    sizes: Sequence[int] | None = None
    parts: Sequence[Mapping[str, torch.Tensor]] = ()


def gather(pooled: Sequence[Pooled], *, sequences: int) -> Raw:
    """Bring what a task's head gave into one piece.

    Raises EngineError where there is not one for each sequence, or their widths differ.
    """
    shapes = [tuple(one.data.shape) for one in pooled]
    ranks, widths = {len(shape) for shape in shapes}, {shape[-1:] for shape in shapes}
    if len(pooled) != sequences or not ranks <= {1, 2} or len(ranks) > 1 or len(widths) > 1:
        raise EngineError(
            f"The task's head gave data of shapes {', '.join(map(str, dict.fromkeys(shapes))) or 'none'} for "
            f"{sequences} sequences. It must give one Pooled for each, all (dim,) or all (rows, dim), with one dim."
        )
    parts = [one.parts for one in pooled] if any(one.parts for one in pooled) else ()
    if ranks == {1}:
        return Raw(torch.stack([one.data for one in pooled]).float(), parts=parts)
    return Raw(torch.cat([one.data for one in pooled]).float(), [shape[0] for shape in shapes], parts)


def answer(
    raw: Raw,
    prompts: Sequence[EncodedPrompt],
    *,
    places: Sequence[int],
    wishes: Sequence[Wish],
    activation: Activation,
) -> list[PooledOutput] | None:
    """Return the answer to each prompt, or None where a number is NaN or infinite.

    Args:
        raw: in the batch's order.
        prompts: what was asked.
        places: each prompt's place in the batch.
        wishes: one per prompt; work is done once for those that are alike.
        activation: what "activate" means.
    """
    parts = _parts_to_numpy(_asked(raw.parts, prompts, places))
    if not bool(raw.rows.isfinite().all()) or not all(
        np.isfinite(array).all() for one in parts for array in one.values()
    ):
        return None
    data = {wish: _finish(raw, *wish, activation) for wish in set(wishes)}
    return [
        PooledOutput(data[wish][place], prompt.token_ids, parts[place] if parts else {})
        for wish, place, prompt in zip(wishes, places, prompts, strict=True)
    ]


def _finish(
    raw: Raw, dimensions: int | None, is_activated: bool, activation: Activation
) -> Sequence[NDArray[np.float32]]:
    rows = raw.rows[:, :dimensions]
    finished: NDArray[np.float32] = (ACTIVATIONS[activation](rows) if is_activated else rows).cpu().numpy()
    if raw.sizes is None:
        return list(finished)
    return np.split(finished, list(accumulate(raw.sizes))[:-1])


def _asked(
    parts: Sequence[Mapping[str, torch.Tensor]], prompts: Sequence[EncodedPrompt], places: Sequence[int]
) -> list[Mapping[str, torch.Tensor]]:
    """Return the parts that each sequence's prompt asks for."""
    names = {place: prompt.params.parts for place, prompt in zip(places, prompts, strict=True)}
    return [
        one if (asked := names[place]) is None else {name: one[name] for name in asked}
        for place, one in enumerate(parts)
    ]


def _parts_to_numpy(parts: Sequence[Mapping[str, torch.Tensor]]) -> list[dict[str, NDArray[np.float32]]]:
    """Copy all parts in one go: each copy from a device waits for it."""
    tensors = [tensor for one in parts for tensor in one.values()]
    if not tensors:
        return [{} for _ in parts]
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors]).cpu().numpy()
    cuts = list(accumulate(prod(tensor.shape) for tensor in tensors))[:-1]
    arrays = iter(
        piece.reshape(tuple(tensor.shape)) for piece, tensor in zip(np.split(flat, cuts), tensors, strict=True)
    )
    return [{name: next(arrays) for name in one} for one in parts]
