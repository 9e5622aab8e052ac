"""What a model's files say of its sparse embeddings. Its defaults are sentence-transformers' own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from poolkit import ModelInfo
from poolkit.errors import ModelError

__all__ = ["Activation", "Pooling", "SpladeFiles", "read_splade_files", "why_not"]


class Pooling(StrEnum):
    """How the weights of a text's tokens become one. The values are sentence-transformers' own."""

    MAX = "max"
    SUM = "sum"


class Activation(StrEnum):
    """What makes a weight of a logit: log(1 + relu), once or twice. The values are sentence-transformers' own."""

    RELU = "relu"
    LOG1P_RELU = "log1p_relu"


@dataclass(frozen=True, slots=True)
class SpladeFiles:
    """What sentence-transformers' SparseEncoder saves beside a checkpoint.

    Attributes:
        pooling: of the module SpladePooling.
        activation: of the module SpladePooling.
        max_active_dims: how many weights of a text are kept by default; None for all.
    """

    pooling: Pooling = Pooling.MAX
    activation: Activation = Activation.RELU
    max_active_dims: int | None = None


def read_splade_files(folder: Path) -> SpladeFiles:
    """Read them from a model's folder. A plain checkpoint, which has none, is a SparseEncoder by default.

    Raises:
        ModelError: a file cannot be read, or asks for something that this task does not have.
    """
    modules = _read(folder / "modules.json")
    paths = [
        str(module["path"])
        for module in (modules if isinstance(modules, list) else [])
        if str(module.get("type", "")).endswith(".SpladePooling")
    ]
    source = folder / paths[0] / "config.json" if paths else folder
    pooling = _read(source) if paths else {}
    shared = _read(folder / "config_sentence_transformers.json")
    max_active_dims = shared.get("max_active_dims") if isinstance(shared, dict) else None
    if not isinstance(pooling, dict):
        raise ModelError(f"{source} is missing or holds no object. Fetch the model again.")
    try:
        return SpladeFiles(
            Pooling(pooling.get("pooling_strategy", Pooling.MAX)),
            Activation(pooling.get("activation_function", Activation.RELU)),
            max_active_dims if isinstance(max_active_dims, int) else None,
        )
    except ValueError as exc:
        raise ModelError(
            f"{source} asks for a SpladePooling that poolkit-splade does not have: {exc}. "
            f"It has pooling_strategy {' or '.join(Pooling)} and activation_function {' or '.join(Activation)}."
        ) from exc


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot serve the task, or None where it can."""
    if model.architecture.endswith("ForMaskedLM"):
        return None
    return "it has no masked language model head"


def _read(path: Path) -> object:
    if not path.is_file():
        return None
    try:
        content: object = json.loads(path.read_text("utf-8"))
    except ValueError as exc:
        raise ModelError(f"{path} is not JSON: {exc}. Fetch the model again.") from exc
    return content
