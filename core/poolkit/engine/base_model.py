"""Gives an engine the model that it converts or runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.contract import ModelInfo

__all__ = ["load_base_model"]


def load_base_model(info: ModelInfo) -> PreTrainedModel:
    """Load a model of transformers without its head, in float32 on the CPU, for an engine that converts it.

    The operator's `hf_overrides` and `trust_remote_code` apply, and weights are never made up.

        def load_backbone(info, *, taps=()):
            return ConvertedBackbone(convert(load_base_model(info)))

    Raises ModelError where transformers cannot load it, or where the checkpoint lacks some of its weights.
    """
    import torch

    from poolkit.engine.torch.loading import Placement, load_weights

    return load_weights(info, Placement(torch.device("cpu"), torch.float32, ()))
