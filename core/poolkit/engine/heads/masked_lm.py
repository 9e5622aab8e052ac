"""Gives a task's head the masked-LM head of the same checkpoint: hidden states in, logits over the vocabulary out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from poolkit.models import ModelInfo

__all__ = ["load_masked_lm_head"]


def load_masked_lm_head(info: ModelInfo, *, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load the masked-LM head of a checkpoint, in float32, with everything that transformers has in it.

    The function that is returned turns (rows, hidden) into (rows, vocabulary). That is large: give it the hidden states
    of a few sequences at a time.

        def create_head(info, *, device):
            to_logits = load_masked_lm_head(info, device=device)
            return lambda hidden, token_ids, segments: [
                Pooled(to_logits(part).amax(0).relu().log1p()) for part in segments.split(hidden)
            ]

    Raises ModelError where the checkpoint has no such head.
    """
    import torch

    from poolkit.engine.heads.pass_through import detach_base
    from poolkit.engine.loading import load_model

    head = load_model(info, info.config, dtype=torch.float32, device=torch.device("cpu"), kind="AutoModelForMaskedLM")
    detach_base(head)
    torch.nn.Module.to(head, device)

    def to_logits(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(inputs_embeds=hidden.float()[None]).logits  # (1, rows, vocabulary)
        return logits[0]

    return to_logits
