"""The engine `openvino`: encoders of transformers, converted in memory and run by OpenVINO on the CPU.

Chosen with `--engine openvino`; needs `pip install 'poolkit[openvino]'`. Rows are padded. Poolers, heads and everything
after them are those of every engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poolkit import ModelInfo
from poolkit.errors import ConfigError

if TYPE_CHECKING:
    from poolkit_plugins.openvino._backbone import PaddedBackbone

__all__ = ["load_backbone"]


def load_backbone(info: ModelInfo, *, taps: Sequence[int] = ()) -> PaddedBackbone | str:
    """Load and convert the model that `info` describes, without its head; or return why OpenVINO cannot run it.

    Raises ConfigError where openvino is not installed, and ModelError where the weights cannot be loaded.
    """
    if reason := _reason_not_to(info, taps):
        return reason
    try:
        from poolkit_plugins.openvino._convert import load
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "openvino":
            raise
        raise ConfigError(
            "The engine 'openvino' needs OpenVINO, which is not installed. "
            "Run: python -m pip install 'poolkit[openvino]'"
        ) from error
    return load(info)


def _reason_not_to(info: ModelInfo, taps: Sequence[int]) -> str | None:
    """Return what rules the engine out before any weight is read, or None."""
    if taps:
        return "it gives the last layer's hidden states alone, and the task taps others"
    if info.pooling.layer_mix is not None:
        return "it gives the last layer's hidden states alone, and the model's vectors are a mean of several layers"
    if info.modalities:
        return f"it reads texts alone, and the model reads modality {' and '.join(info.modalities)}"
    if info.config.device not in ("auto", "cpu"):
        return f"it runs on the CPU, and device is {info.config.device!r}"
    if info.config.dtype == "int8":
        return "it does not compute in int8"
    if info.config.batching == "packed":
        return "it pads rows, and batching is 'packed'"
    return None
