"""A model of transformers as a backbone: one way to run each modality that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from poolkit.engine.torch.forward import SharesPrefixes
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.contract import Batch, Decision, States
    from poolkit.engine.torch.forward import Forward

__all__ = ["TorchBackbone"]


class TorchBackbone:
    """Runs batches of one model.

    Args:
        forward: runs a batch, by its modality.
        decisions: for the start-up report.
        base: the base that gives the hidden states of texts; None where the model is run whole.

    Attributes:
        shares_prefixes: True if texts of one batch may continue another.
    """

    def __init__(
        self, forward: Mapping[str, Forward], *, decisions: Sequence[Decision], base: PreTrainedModel | None = None
    ) -> None:
        self.decisions = tuple(decisions)
        self.base = base
        self._forward = forward
        self.shares_prefixes = isinstance(forward.get("text"), SharesPrefixes)

    def __call__(self, batch: Batch, /) -> States[torch.Tensor]:
        """Return the hidden states of a batch."""
        forward = self._forward.get(batch.modality)
        if forward is None:
            raise EngineError(
                f"The model reads {' and '.join(self._forward)}, but a prompt is of modality {batch.modality!r}."
            )
        with torch.inference_mode():
            return forward(batch)
