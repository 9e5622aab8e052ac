"""The two layers that make a vector of a hidden state, read from the model's own weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch.nn.functional import linear

from poolkit import ModelInfo
from poolkit.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Projector", "load_projector"]

FIRST = "projector.0.weight"
SECOND = "projector.2.weight"


@dataclass(frozen=True, slots=True)
class Projector:
    """Two layers without biases and a ReLU between them, in float32."""

    first: torch.Tensor  # (middle, hidden)
    second: torch.Tensor  # (dim, middle)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the projected rows. (rows, hidden) -> (rows, dim)"""
        return linear(linear(rows, self.first).relu(), self.second)


def load_projector(info: ModelInfo, *, device: str) -> Projector:
    """Read the projector from the safetensors in a model's folder, whichever of them holds it.

    Raises:
        ModelError: a file cannot be read, or none holds a projector of the model's width.
    """
    first, second = (_read(info, name) for name in (FIRST, SECOND))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != info.hidden_size or second.shape[1] != first.shape[0]:
        raise ModelError(
            f"The weights in {info.path} hold {FIRST} of shape {tuple(first.shape)} and {SECOND} of shape "
            f"{tuple(second.shape)}; they must be (middle, {info.hidden_size}) and (dim, middle). Fetch it again."
        )
    return Projector(first.float().to(device), second.float().to(device))


def _read(info: ModelInfo, name: str) -> torch.Tensor:
    files = sorted(info.path.glob("*.safetensors"))
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                if name in tensors.keys():  # noqa: SIM118 - it is no dict
                    tensor: torch.Tensor = tensors.get_tensor(name)
                    return tensor
        except (OSError, SafetensorError) as exc:
            raise ModelError(f"{path} cannot be read: {exc}. Fetch the model again.") from exc
    raise ModelError(
        f"{info.path} has no {name} in {_listed([path.name for path in files])}, so {info.name} is no complete "
        "jina-reranker-v3. Fetch the model again; other formats than safetensors are not read."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "any safetensors file"
