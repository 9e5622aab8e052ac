"""Gives an engine the model that it converts or runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from poolkit.contract import Backbone, Decision, ModelInfo, Pooler, PromptEncoder

__all__ = ["BaseWithHead", "load_base_model", "load_base_with_head"]


@dataclass(frozen=True, slots=True)
class BaseWithHead:
    """A classifier of transformers, taken apart, in float32 on the CPU.

    Attributes:
        base: gives the hidden states.
        backbone: runs the base with torch, padded, as a reference for what an engine makes of it.
        pooler: runs the head on hidden states, be they numpy's or torch's.
        decision: what the head reads, for the start-up report.
    """

    base: PreTrainedModel
    backbone: Backbone[torch.Tensor]
    pooler: Pooler[torch.Tensor]
    decision: Decision


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


def load_base_with_head(info: ModelInfo, *, encoder: PromptEncoder, per_token: bool) -> BaseWithHead | None:
    """Load a classifier of transformers, its head apart, for an engine that converts the base and reads it once.

        def load_with_head(info, *, encoder, per_token):
            found = load_base_with_head(info, encoder=encoder, per_token=per_token)
            if found is None:
                return "its head cannot be run without the rest of the model"
            return ConvertedBackbone(convert(found.base)), found.pooler

    Returns None where the head cannot be run alone. Raises ModelError as `load_base_model` does.
    """
    from poolkit.engine.poolers.task_head import OnTorch
    from poolkit.engine.torch import load_with_head
    from poolkit.engine.torch.backbone import TorchBackbone

    # Padded the base is left as transformers made it: torch's faster ways lay out its weights anew.
    config = info.config.model_copy(update={"device": "cpu", "dtype": "float32", "batching": "padded"})
    found = load_with_head(replace(info, config=config), encoder=encoder, per_token=per_token)
    if isinstance(found, str):
        return None
    backbone, pooler = found
    if not isinstance(backbone, TorchBackbone) or backbone.base is None:
        return None
    decision = next(line for line in backbone.decisions if line.name == "head")
    return BaseWithHead(backbone.base, backbone, OnTorch(pooler), decision)
