"""The ways to run a batch through a model. Each gives the same hidden states.

`padded_forward` is the plain one, the model run as transformers runs it; `packed_forward` is the fast one.
`padded_logits` runs a whole classifier the plain way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from poolkit.contract import States
from poolkit.engine.poolers.layers import read_tensors
from poolkit.engine.torch.attention import BATCH_ARGUMENT
from poolkit.engine.torch.batch import PackedBatch
from poolkit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput

    from poolkit.contract import Batch, ModelInfo
    from poolkit.engine.torch.varlen import VarlenAttention

__all__ = [
    "Forward",
    "RunPacked",
    "SharesPrefixes",
    "Take",
    "load_take",
    "packed_forward",
    "padded_forward",
    "padded_logits",
    "parameters_of",
    "run_packed",
    "takes_token_types",
]

Forward: TypeAlias = Callable[["Batch"], States[torch.Tensor]]
"""Runs one batch."""


@dataclass(frozen=True, slots=True)
class SharesPrefixes:
    """A way to run batches in which prompts continue others."""

    forward: Forward

    def __call__(self, batch: Batch) -> States[torch.Tensor]:
        """Run one batch."""
        return self.forward(batch)


RunPacked: TypeAlias = Callable[["PreTrainedModel", PackedBatch, int, Mapping[str, object]], "BaseModelOutput"]
"""Runs all rows of a batch as one: its tokens, and filler rows after them.

It is given the position id of a first token, and further arguments.
"""

LAYER_WEIGHTS = "layer_weights"


@dataclass(frozen=True, slots=True)
class Take:
    """Takes the token vectors out of what a model gives.

    Attributes:
        last: returns the vector of each token. (rows, tokens, dim)
        taps: layers whose hidden states are given beside them.
    """

    last: Callable[[Any], torch.Tensor]
    taps: tuple[int, ...] = ()

    @property
    def arguments(self) -> Mapping[str, object]:
        """Further arguments that the model must be given."""
        return {"output_hidden_states": True} if self.taps else {}

    def __call__(self, output: BaseModelOutput) -> list[torch.Tensor]:
        """Return the token vectors, and then those of each tap. (rows, tokens, dim) each"""
        if not self.taps:
            return [self.last(output)]
        layers = output.hidden_states or ()
        wrong = [tap for tap in self.taps if not 0 <= tap < len(layers)]
        if wrong:
            raise ModelError(f"There is no layer {wrong[0]} to tap: the model has 0 to {len(layers) - 1}.")
        return [self.last(output), *(layers[tap] for tap in self.taps)]

    def states(self, parts: Sequence[torch.Tensor]) -> States[torch.Tensor]:
        """Return the states that consist of such vectors, cut to the batch's tokens. (tokens, dim) each"""
        return States(parts[0], taps=dict(zip(self.taps, parts[1:], strict=True)))


def load_take(info: ModelInfo, taps: Sequence[int], *, device: torch.device) -> Take:
    """Return how token vectors are taken from a base: of its last layer, or a weighted mean of several.

    Raises ModelError where the weights are missing.
    """
    mix = info.pooling.layer_mix
    if mix is None:
        return Take(_last_hidden_state, tuple(taps))
    weights = read_tensors(mix.folder, {LAYER_WEIGHTS: (-1,)})[LAYER_WEIGHTS].to(device)
    shares = weights / weights.sum()  # (layers,)

    def mixed(output: BaseModelOutput) -> torch.Tensor:
        layers = output.hidden_states
        if layers is None or len(layers) - mix.first != len(shares):
            raise ModelError(
                f"The weights in {mix.folder} are for {len(shares)} layers, but the base gives "
                f"{len(layers or ()) - mix.first} from layer {mix.first} on."
            )
        return torch.einsum("l...,l->...", torch.stack(layers[mix.first :]).float(), shares)

    return Take(mixed, tuple(taps))


def _last_hidden_state(output: BaseModelOutput) -> torch.Tensor:
    assert output.last_hidden_state is not None
    return output.last_hidden_state


def takes_token_types(model: PreTrainedModel) -> bool:
    """Return whether the model tells the two texts of a pair apart by token types."""
    kinds = getattr(model.config, "type_vocab_size", None) or 0
    return kinds > 1 and "token_type_ids" in parameters_of(model)


def parameters_of(model: torch.nn.Module) -> frozenset[str]:
    """Return the names of what a model's `forward` takes."""
    return _parameters_of(type(model).forward)


@cache
def _parameters_of(forward: Callable[..., object]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def run_packed(
    model: PreTrainedModel, batch: PackedBatch, position_offset: int, arguments: Mapping[str, object]
) -> BaseModelOutput:
    """Run all tokens as one row; positions start over in each segment. The model's attention must be packed."""
    types = batch.token_type_ids
    output: BaseModelOutput = model(
        input_ids=batch.token_ids[None],  # (1, rows)
        position_ids=batch.positions(position_offset)[None],  # (1, rows)
        **({} if types is None or not takes_token_types(model) else {"token_type_ids": types[None]}),  # (1, rows)
        **{BATCH_ARGUMENT: batch},
        **arguments,
    )
    return output


def packed_forward(
    model: PreTrainedModel,
    batch: Batch,
    *,
    position_offset: int,
    take: Take,
    run: RunPacked = run_packed,
    varlen: VarlenAttention | None = None,
) -> States[torch.Tensor]:
    """Run all tokens as one row. `varlen` attends in all segments at once, where the device has such a kernel."""
    packed = PackedBatch.of(batch, model.device, varlen=varlen)
    output = run(model, packed, position_offset, take.arguments)
    return take.states([part[0, : packed.tokens] for part in take(output)])  # (tokens, hidden) each


def padded_forward(
    model: PreTrainedModel,
    batch: Batch,
    *,
    pad_token_id: int,
    max_tokens: int,
    take: Take,
    takes_types: bool | None = None,
) -> States[torch.Tensor]:
    """Run the segments as rows padded on the right, so many rows at a time that they hold at most `max_tokens`.

    `takes_types` says whether the model is given token types; None where its config does.
    """
    blocks = [
        [part[row, column] for part in take(output)]
        for output, row, column in _padded_blocks(
            model,
            batch,
            pad_token_id=pad_token_id,
            max_tokens=max_tokens,
            takes_types=takes_token_types(model) if takes_types is None else takes_types,
            further=take.arguments,
        )
    ]
    return take.states([torch.cat(parts) for parts in zip(*blocks, strict=True)])


def padded_logits(
    model: PreTrainedModel, batch: Batch, *, pad_token_id: int, max_tokens: int, per_token: bool
) -> torch.Tensor:
    """Run a classifier with its head on padded rows. (prompts, labels), or (tokens, labels) where `per_token`"""
    blocks = _padded_blocks(
        model,
        batch,
        pad_token_id=pad_token_id,
        max_tokens=max_tokens,
        takes_types=takes_token_types(model),
        further={},
    )
    return torch.cat(
        [output.logits[row, column] if per_token else output.logits for output, row, column in blocks]
    ).float()


def _padded_blocks(
    model: PreTrainedModel,
    batch: Batch,
    *,
    pad_token_id: int,
    max_tokens: int,
    takes_types: bool,
    further: Mapping[str, object],
) -> Iterator[tuple[Any, torch.Tensor, torch.Tensor]]:
    """Yield the model's output for some segments at a time, with the row and the column of each of their tokens."""
    arrays, bounds, sizes = batch.on(model.device), batch.cu_seqlens, batch.segments.sizes
    segments = arrays.segments
    types = arrays.token_type_ids if takes_types else None
    for first, last in _blocks(sizes, max_tokens):
        start, stop = int(bounds[first]), int(bounds[last])
        row, column = segments.segment_ids[start:stop] - first, segments.positions[start:stop]
        shape = (last - first, sizes[last - 1])
        attended = segments.lengths if arrays.attention_lengths is None else arrays.attention_lengths
        places = torch.arange(shape[1], device=model.device)
        arguments = {"attention_mask": (places < attended[first:last, None]).long(), **further}
        for name, tokens, padding in (("input_ids", arrays.token_ids, pad_token_id), ("token_type_ids", types, 0)):
            if tokens is not None:
                padded = torch.full(shape, padding, device=model.device)  # (rows, longest)
                padded[row, column] = tokens[start:stop]
                arguments[name] = padded
        yield model(**arguments), row, column


def _blocks(lengths: list[int], max_tokens: int) -> list[tuple[int, int]]:
    """Return the ranges of segments to run together, cut from the longest end: each is as wide as its longest."""
    blocks = []
    last = len(lengths)
    while last > 0:
        rows = max(1, max_tokens // lengths[last - 1])
        blocks.append((max(0, last - rows), last))
        last -= rows
    return blocks[::-1]
