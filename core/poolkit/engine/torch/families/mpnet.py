"""MPNet packed: its layers add a learned bias by distance, so they do not use transformers' attention interface.

This is MPNetModel.forward of transformers with the bias made for each length instead of for the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch

from poolkit.engine.torch.attention import attend_by_length
from poolkit.engine.torch.families.family import TorchFamily

if TYPE_CHECKING:
    from transformers import MPNetModel, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput
    from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention

    from poolkit.engine.torch.batch import LengthGroup, PackedBatch

__all__ = ["MPNET"]


def _run_packed(
    model: PreTrainedModel, batch: PackedBatch, position_offset: int, _: Mapping[str, object]
) -> BaseModelOutput:
    from transformers.modeling_outputs import BaseModelOutput

    mpnet = cast("MPNetModel", model)
    groups = batch.groups
    hidden: torch.Tensor = mpnet.embeddings(
        input_ids=batch.token_ids[None], position_ids=batch.positions(position_offset)[None]
    )
    longest = mpnet.encoder.compute_position_bias(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        hidden[:, : groups[-1].length]
    )  # (1, heads, longest, longest)
    biases = [_bias(longest, group, batch) for group in groups]
    layers = [hidden]
    for layer in cast("list[MPNetLayer]", mpnet.encoder.layer):
        attention = layer.attention
        attended = _attend(attention.attn, hidden, batch, biases)
        hidden = attention.LayerNorm(attended + hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
        layers.append(hidden)
    return BaseModelOutput(last_hidden_state=cast("torch.FloatTensor", hidden), hidden_states=tuple(layers))


def _bias(longest: torch.Tensor, group: LengthGroup, batch: PackedBatch) -> torch.Tensor:
    bias = longest[..., : group.length, : group.length]  # distances start over in each segment
    mask = batch.mask(group, width=None, is_causal=False)
    return bias if mask is None else bias.where(mask, -torch.inf)


def _attend(
    attention: MPNetSelfAttention, hidden: torch.Tensor, batch: PackedBatch, biases: list[torch.Tensor]
) -> torch.Tensor:
    heads = (attention.num_attention_heads, attention.attention_head_size)
    query, key, value = (
        project(hidden).unflatten(-1, heads).transpose(1, 2)  # (1, heads, rows, dim)
        for project in (attention.q, attention.k, attention.v)
    )
    attended = attend_by_length(query, key, value, batch, masks=biases)  # (1, rows, heads, dim)
    projected: torch.Tensor = attention.o(attended.flatten(2))  # (1, rows, hidden)
    return projected


MPNET = TorchFamily(run_packed=_run_packed)
"""All of MPNet, whatever its head."""
