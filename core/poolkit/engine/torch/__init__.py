"""The engine `torch`: any model of transformers, packed where that gives what the plain padded model gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poolkit.engine.torch.backbone import TorchBackbone
from poolkit.engine.torch.families.family import find_family
from poolkit.engine.torch.loading import Placement, load_weights, resolve_device
from poolkit.engine.torch.self_check import choose_forward
from poolkit.engine.torch.split import split_classifier

if TYPE_CHECKING:
    import torch

    from poolkit.contract import Backbone, Decision, ModelInfo, Pooler, PromptEncoder

__all__ = ["decide", "find_device", "load_backbone", "load_with_head"]

SEQUENCE_CLASSIFIER = "AutoModelForSequenceClassification"
TOKEN_CLASSIFIER = "AutoModelForTokenClassification"  # noqa: S105 - a class, not a secret

NO_INT8 = "it does not compute in int8; set dtype to auto, float32 or bfloat16"


def decide(info: ModelInfo) -> Sequence[Decision]:
    """Return where the weights go, and in which dtype.

    Raises ConfigError where torch cannot use the device.
    """
    return Placement.resolve(info.config).decisions


def find_device(info: ModelInfo) -> str:
    """Return the device that the weights go to.

    Raises ConfigError where torch cannot use it.
    """
    return str(resolve_device(info.config)[0])


def load_backbone(info: ModelInfo, *, taps: Sequence[int] = ()) -> Backbone[torch.Tensor] | str:
    """Load the weights of the model that `info` describes, without its head.

    Raises ModelError where they cannot be loaded, or where packed was asked for and the model cannot run so.
    """
    if info.config.dtype == "int8":
        return NO_INT8
    family, placement = find_family(info), Placement.resolve(info.config)
    if family.load is not None:
        return family.load(info, placement, taps=taps)
    if info.modalities:
        return f"it needs an adapter for modality {' and '.join(info.modalities)}, and the model's family has none"
    model = load_weights(info, placement)
    forward, path = choose_forward(model, info, taps=taps, run=family.run_packed)
    return TorchBackbone({"text": forward}, decisions=(*placement.decisions, path))


def load_with_head(
    info: ModelInfo, *, encoder: PromptEncoder, per_token: bool
) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]] | str:
    """Load the weights of a model with its own head.

    Returns what runs its base, and what gives the logits of each prompt in float32, or of each token where `per_token`.
    A head that cannot be run alone leaves it to the backbone to give them.

    Raises ModelError as `load_backbone` does.
    """
    if info.config.dtype == "int8":
        return NO_INT8
    family, placement = find_family(info), Placement.resolve(info.config)
    if family.load_head is not None:
        return family.load_head(info, placement, encoder=encoder, per_token=per_token)
    model = load_weights(info, placement, kind=TOKEN_CLASSIFIER if per_token else SEQUENCE_CLASSIFIER)
    return split_classifier(model, info, placement, per_token=per_token, run=family.run_packed)
