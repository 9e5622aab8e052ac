"""From a batch's raw outputs to each prompt's answer: cut, activated, as numpy, in prompt order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from poolkit.contract import Activation, PooledOutput
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import EncodedPrompt
    from poolkit.engine.heads.task_head import Pooled
    from poolkit.engine.late_interaction.queries import QueryStore

__all__ = ["Raw", "Wish", "answer", "gather"]


class Wish(NamedTuple):
    """What becomes of a sequence's rows.

    Attributes:
        is_activated: whether they are.
        dimensions: how many of the first columns are kept; None is all.
        columns: which columns are kept, and activated by softmax; None is all, activated as the task says.
    """

    is_activated: bool
    dimensions: int | None = None
    columns: tuple[int, ...] | None = None


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
    queries: QueryStore,
) -> list[PooledOutput] | None:
    """Return the answer to each prompt, or None where a number is NaN or infinite.

    Args:
        raw: in the batch's order.
        prompts: what was asked.
        places: each prompt's place in the batch.
        wishes: one per prompt; work is done once for those that are alike.
        activation: what "activate" means.
        queries: what documents are scored against next to the model.
    """
    parts = _parts_to_numpy(_asked(raw.parts, prompts, places))
    if not bool(raw.rows.isfinite().all()) or not all(
        np.isfinite(array).all() for one in parts for array in one.values()
    ):
        return None
    finished = {wish: _finish(raw.rows, wish, activation) for wish in set(wishes)}
    if raw.sizes is not None and any(prompt.params.late_interaction is not None for prompt in prompts):
        vectors = {wish: torch.split(rows, list(raw.sizes)) for wish, rows in finished.items()}
        data = _copy_all(
            queries.answer(
                [prompt.params.late_interaction for prompt in prompts],
                [vectors[wish][place] for wish, place in zip(wishes, places, strict=True)],
            )
        )
    else:
        arrays = {wish: _split(rows.cpu().numpy(), raw.sizes) for wish, rows in finished.items()}
        data = [arrays[wish][place] for wish, place in zip(wishes, places, strict=True)]
    return [
        PooledOutput(array, prompt.token_ids, parts[place] if parts else {})
        for array, place, prompt in zip(data, places, prompts, strict=True)
    ]


def _finish(rows: torch.Tensor, wish: Wish, activation: Activation) -> torch.Tensor:
    if wish.columns is not None:
        rows, activation = rows[:, list(wish.columns)], Activation.SOFTMAX
    cut = rows[:, : wish.dimensions]
    return ACTIVATIONS[activation](cut) if wish.is_activated else cut


def _split(rows: NDArray[np.float32], sizes: Sequence[int] | None) -> Sequence[NDArray[np.float32]]:
    return list(rows) if sizes is None else np.split(rows, list(accumulate(sizes))[:-1])


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
    arrays = iter(_copy_all([tensor for one in parts for tensor in one.values()]))
    return [{name: next(arrays) for name in one} for one in parts]


def _copy_all(tensors: Sequence[torch.Tensor]) -> list[NDArray[np.float32]]:
    """Copy tensors in one go: each copy from a device waits for it."""
    if not tensors:
        return []
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors]).cpu().numpy()
    cuts = list(accumulate(prod(tensor.shape) for tensor in tensors))[:-1]
    return [piece.reshape(tuple(tensor.shape)) for piece, tensor in zip(np.split(flat, cuts), tensors, strict=True)]
