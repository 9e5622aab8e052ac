"""The engine `cpu`: whole forward passes in native kernels, without padding, on x86-64 CPUs.

`--engine auto` takes it where the package poolkit-cpu-kernels can run and has the model's family. A text gets the same
bits alone and in every batch. Poolers, heads and everything after them are those of every engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poolkit_plugins.cpu._library import Library, find_library
from poolkit_plugins.cpu.families import FAMILIES, STEP

if TYPE_CHECKING:
    import torch

    from poolkit import Decision, ModelInfo, Pooler, PromptEncoder
    from poolkit_plugins.cpu._backbone import NativeBackbone

__all__ = ["decide", "load_backbone", "load_with_head", "suits"]


def suits(info: ModelInfo) -> str | None:
    """Return None if the kernels should run the model, else why not."""
    if reason := _reason_not_to(info):
        return reason
    found = find_library(info.config)
    return found if isinstance(found, str) else None


def decide(info: ModelInfo) -> Sequence[Decision]:
    """Return which library runs the model, and in which dtype.

    Raises ConfigError where there is none.
    """
    return Library.require(info.config).decisions


def load_backbone(info: ModelInfo, *, taps: Sequence[int] = ()) -> NativeBackbone | str:
    """Load the weights of the model that `info` describes, without its head; or return why it cannot be run.

    Raises ConfigError where the kernels are missing and the engine was named, and ModelError where the weights cannot
    be loaded.
    """
    if taps:
        return "it gives the last layer's hidden states alone, and the task taps others"
    if reason := _reason_not_to(info):
        return reason
    library = Library.require(info.config)
    from poolkit_plugins.cpu._load import load

    return load(info, library)


def load_with_head(
    info: ModelInfo, *, encoder: PromptEncoder, per_token: bool
) -> tuple[NativeBackbone, Pooler[torch.Tensor]] | str:
    """Load the weights of a model with its own head, which runs with torch; or return why it cannot be run.

    Raises as `load_backbone` does.
    """
    if reason := _reason_not_to(info):
        return reason
    library = Library.require(info.config)
    from poolkit_plugins.cpu._load import load_with_head

    return load_with_head(info, library, encoder=encoder, per_token=per_token)


def _reason_not_to(info: ModelInfo) -> str | None:
    """Return what rules the engine out before any weight is read, whatever the machine; or None."""
    config = info.config
    if info.modalities:
        return f"it reads texts alone, and the model reads modality {' and '.join(info.modalities)}"
    if info.pooling.layer_mix is not None:
        return "it gives the last layer's hidden states alone, and the model's vectors are a mean of several layers"
    if info.model_type not in FAMILIES:
        return f"its table has no models of type {info.model_type!r}"
    if info.hidden_size % STEP:
        return f"it takes widths that are multiples of {STEP}, and the model's hidden_size is {info.hidden_size}"
    if config.device not in ("auto", "cpu"):
        return f"it runs on the CPU, and device is {config.device!r}"
    if config.batching == "padded":
        return "it pads nothing, and batching is 'padded'"
    if config.dtype == "float16":
        return "it does not compute in float16"
    return None
