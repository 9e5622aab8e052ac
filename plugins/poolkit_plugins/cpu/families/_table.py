"""The table that the readers of all families fill, and parts of models that are alike in many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from poolkit_cpu_kernels import EncoderSpec, EncoderTensors, LayerTensors

    Float32 = NDArray[np.float32]
    Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]

__all__ = [
    "NotInTableError",
    "Table",
    "bias_of",
    "find_activation",
    "linear",
    "norm",
    "read_rope",
    "read_tables",
    "require",
    "to_array",
    "weight_of",
]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""By transformers' names."""

CHANGES_WITH_LENGTH = ("dynamic", "longrope")
"""Kinds of rope whose frequencies depend on the length of a text."""


class NotInTableError(Exception):
    """The model asks for what the kernels do not have: the text says what."""


@dataclass(frozen=True)
class Table:
    """A model as the kernels take it.

    Attributes:
        spec: sizes and choices; the dtype is left to the caller.
        tensors: all that is outside the layers.
        layers: each layer's module, and its tensors, which are views of the module's where that is possible.
    """

    spec: EncoderSpec
    tensors: EncoderTensors
    layers: Iterator[tuple[torch.nn.Module, LayerTensors]]


def require(holds: bool, what: str) -> None:
    """Raise NotInTableError with what the model has, unless the condition holds."""
    if not holds:
        raise NotInTableError(what)


def find_activation(name: object) -> Activation:
    """Return the kernels' name of an activation."""
    require(isinstance(name, str) and name in ACTIVATIONS, f"its table has no activation {name!r}")
    return ACTIVATIONS[cast("str", name)]


def to_array(tensor: torch.Tensor) -> Float32:
    """Return a tensor in float32, as a view where that is possible."""
    array: Float32 = tensor.detach().float().contiguous().numpy()
    return array


def weight_of(module: object) -> Float32:
    """Return the weight of a plain linear layer. An adapter that is not merged is no such layer."""
    require(type(module) is torch.nn.Linear, f"its linear layers are {type(module).__name__}, not plain ones")
    return to_array(cast("torch.nn.Linear", module).weight)


def bias_of(module: Any) -> Float32 | None:  # noqa: ANN401 - modules of many classes
    """Return the bias of a linear layer or a norm, where it has one."""
    bias = getattr(module, "bias", None)
    return None if bias is None else to_array(bias)


def linear(name: str, module: object) -> dict[str, Any]:
    """Return weight and bias of a linear layer, under the names of the kernels' tensors."""
    return {f"{name}_weight": weight_of(module), f"{name}_bias": bias_of(module)}


def norm(name: str, module: Any) -> dict[str, Any]:  # noqa: ANN401 - modules of many classes
    """Return weight and bias of a norm; neither where there is no norm (ModernBERT's first)."""
    weight = getattr(module, "weight", None)
    return {f"{name}_weight": None if weight is None else to_array(weight), f"{name}_bias": bias_of(module)}


def read_tables(**embeddings: torch.nn.Embedding | None) -> tuple[dict[str, Any], Literal["float32", "bfloat16"]]:
    """Return embedding tables and their dtype: bfloat16 where the checkpoint's were, so that nothing is lost by it.

    They are views of torch's memory, or half as large.
    """
    weights = {name: module.weight.detach() for name, module in embeddings.items() if module is not None}
    rounded = {name: weight.bfloat16() for name, weight in weights.items()}
    if not all(torch.equal(rounded[name].to(weight.dtype), weight) for name, weight in weights.items()):
        return {name: to_array(weight) for name, weight in weights.items()}, "float32"
    return {name: weight.view(torch.uint16).numpy() for name, weight in rounded.items()}, "bfloat16"


def read_rope(rotary: Any, positions: int, head_dim: int, kind: str = "") -> Float32:  # noqa: ANN401 - of many classes
    """Return cosines and sines of each position, by the model's own frequencies. (positions, head_dim)

    Args:
        rotary: the model's `rotary_emb`.
        positions: number of them.
        head_dim: of queries and keys.
        kind: of the layers, where the model rotates layers of different kinds by different frequencies.
    """
    prefix = f"{kind}_" if kind else ""
    rope_type = rotary.rope_type[kind] if kind else rotary.rope_type
    require(rope_type not in CHANGES_WITH_LENGTH, f"its table has no rope of type {rope_type!r}")
    frequencies = getattr(rotary, f"{prefix}inv_freq").detach().float().cpu()
    require(2 * len(frequencies) == head_dim, "it rotates whole heads, and the model a part of each")
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies  # (positions, head_dim / 2)
    scaling = getattr(rotary, f"{prefix}attention_scaling")
    return to_array(torch.cat([angles.cos(), angles.sin()], dim=1) * scaling)
