"""MPNet's packed pass: its layers add a learned bias by distance, so they do not use transformers' attention interface.

This is MPNetModel.forward of transformers with the bias made for each length instead of for the whole batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from poolkit.engine.passes.attention import rectangle

if TYPE_CHECKING:
    from transformers import MPNetModel, PreTrainedModel
    from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention

    from poolkit.engine.passes.segments import Batch, Run, Segments

__all__ = ["mpnet_packed_pass"]


def mpnet_packed_pass(model: PreTrainedModel, batch: Batch, *, position_offset: int) -> torch.Tensor:
    """Return the last hidden state of each token. (tokens, hidden)"""
    mpnet = cast("MPNetModel", model)
    runs = batch.segments.runs
    hidden: torch.Tensor = mpnet.embeddings(
        input_ids=batch.token_ids[None], position_ids=batch.positions(position_offset)[None]
    )
    longest = mpnet.encoder.compute_position_bias(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        hidden[:, : runs[-1].length]
    )  # (1, heads, longest, longest)
    biases = [_bias(longest, run, batch.segments) for run in runs]
    for layer in cast("list[MPNetLayer]", mpnet.encoder.layer):
        attention = layer.attention
        attended = _attend(attention.attn, hidden, runs, biases)
        hidden = attention.LayerNorm(attended + hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden[0]


def _bias(longest: torch.Tensor, run: Run, segments: Segments) -> torch.Tensor:
    bias = longest[..., : run.length, : run.length]  # distances start anew in each segment
    mask = segments.mask(run, width=None, is_causal=False)
    return bias if mask is None else bias.where(mask, -torch.inf)


def _attend(
    attention: MPNetSelfAttention, hidden: torch.Tensor, runs: tuple[Run, ...], biases: list[torch.Tensor]
) -> torch.Tensor:
    heads = (attention.num_attention_heads, attention.attention_head_size)
    query, key, value = (
        project(hidden).unflatten(-1, heads).transpose(1, 2)  # (1, heads, tokens, dim)
        for project in (attention.q, attention.k, attention.v)
    )
    attended = [
        scaled_dot_product_attention(
            rectangle(query, run), rectangle(key, run), rectangle(value, run), attn_mask=bias
        )  # (count, heads, length, dim)
        .transpose(1, 2)
        .flatten(2)  # (count, length, hidden)
        .flatten(0, 1)  # (count * length, hidden)
        for run, bias in zip(runs, biases, strict=True)
    ]
    projected: torch.Tensor = attention.o(torch.cat(attended)[None])  # (1, tokens, hidden)
    return projected
