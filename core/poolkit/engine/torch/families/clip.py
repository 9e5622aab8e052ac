"""CLIP's text tower on a packed batch: its own embeddings refuse a row that is longer than one text may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from poolkit.engine.torch.attention import BATCH_ARGUMENT

if TYPE_CHECKING:
    from transformers import CLIPTextModel, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput

    from poolkit.engine.torch.batch import PackedBatch

__all__ = ["run_packed_clip"]


def run_packed_clip(
    tower: PreTrainedModel, batch: PackedBatch, _: int, arguments: Mapping[str, object]
) -> BaseModelOutput:
    """Run all tokens as one row, as `CLIPTextModel.forward` runs a batch. The tower's attention must be packed."""
    clip = cast("CLIPTextModel", tower)
    embeddings, arrays = clip.embeddings, batch.arrays
    states = embeddings.token_embedding(arrays.token_ids) + embeddings.position_embedding(arrays.segments.positions)
    output: BaseModelOutput = clip.encoder(
        inputs_embeds=states[None],  # (1, tokens, hidden)
        attention_mask=None,
        is_causal=True,
        **{BATCH_ARGUMENT: batch},
        **arguments,
    )
    output.last_hidden_state = clip.final_layer_norm(output.last_hidden_state)
    return output
