"""Runs what a model has on top of its base alone: the base gives way to something that hands on hidden states.

transformers models take `inputs_embeds` and give them to their base as they are. So a stand-in for the base that
answers with them makes the whole model a function of hidden states, whatever its head consists of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

__all__ = ["PassThrough", "attach_base", "detach_base"]


class PassThrough(torch.nn.Module):
    """Stands in for a base model: what it is given as `inputs_embeds` is its last hidden state.

    A base's own pooler (BERT's) belongs to the head and stays.
    """

    def __init__(self, pooler: torch.nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(
        self, *_ignored: object, inputs_embeds: torch.Tensor, **_also: object
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Return the hidden states (rows, tokens, hidden), and what the pooler makes of them."""
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)


def detach_base(model: PreTrainedModel) -> PreTrainedModel:
    """Put a `PassThrough` in the place of the model's base, and return the base, its pooler left behind."""
    base: PreTrainedModel = getattr(model, model.base_model_prefix)
    pooler = getattr(base, "pooler", None)
    if pooler is not None:
        setattr(base, "pooler", None)  # noqa: B010 - its declared type has no None
    setattr(model, model.base_model_prefix, PassThrough(pooler))
    return base


def attach_base(model: PreTrainedModel, base: PreTrainedModel) -> None:
    """Undo `detach_base`."""
    stand_in: PassThrough = getattr(model, model.base_model_prefix)
    if stand_in.pooler is not None:
        base.pooler = stand_in.pooler
    setattr(model, model.base_model_prefix, base)
