"""CLIP's text tower on a packed batch: its own embeddings refuse a row that is longer than one text may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from poolkit.engine.passes.attention import SEGMENTS_ARGUMENT

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, PreTrainedModel

    from poolkit.engine.passes.segments import Batch

__all__ = ["clip_packed_pass"]


def clip_packed_pass(tower: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Run all tokens as one row, as `CLIPTextModel.forward` runs a batch. The tower's attention must be packed.

    Returns the last hidden state of each token, (tokens, hidden).
    """
    clip = cast("CLIPTextModel", tower)
    embeddings = clip.embeddings
    states = embeddings.token_embedding(batch.token_ids) + embeddings.position_embedding(batch.segments.places)
    output = clip.encoder(
        inputs_embeds=states[None],  # (1, tokens, hidden)
        attention_mask=None,
        is_causal=True,
        **{SEGMENTS_ARGUMENT: batch.segments},
    )
    hidden: torch.Tensor = clip.final_layer_norm(output.last_hidden_state[0])
    return hidden
