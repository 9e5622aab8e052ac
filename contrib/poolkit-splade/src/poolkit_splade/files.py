"""Reads the settings of a model's sparse embeddings from its files. Its defaults are sentence-transformers' own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from poolkit import ModelInfo, Module, TaskModule
from poolkit.errors import ModelError

__all__ = ["Activation", "Pooling", "SpladeFiles", "read_module", "splade_files", "why_not"]


class Pooling(StrEnum):
    """The reduction of a text's token weights to one. The values are sentence-transformers' own."""

    MAX = "max"
    SUM = "sum"


class Activation(StrEnum):
    """The activation of a logit: log(1 + relu), once or twice. The values are sentence-transformers' own."""

    RELU = "relu"
    LOG1P_RELU = "log1p_relu"


@dataclass(frozen=True, slots=True)
class SpladeFiles:
    """The settings that sentence-transformers' SparseEncoder saves beside a checkpoint.

    Attributes:
        pooling: of the module SpladePooling.
        activation: of the module SpladePooling.
        max_active_dims: how many weights of a text are kept by default; None for all.
    """

    pooling: Pooling = Pooling.MAX
    activation: Activation = Activation.RELU
    max_active_dims: int | None = None


def read_module(module: Module) -> TaskModule:
    """Read a SpladePooling.

    Raises:
        ModelError: it asks for something that this task does not have.
    """
    settings, max_active_dims = module.settings(), module.shared().get("max_active_dims")
    try:
        files = SpladeFiles(
            Pooling(str(settings.get("pooling_strategy", Pooling.MAX))),
            Activation(str(settings.get("activation_function", Activation.RELU))),
            max_active_dims if isinstance(max_active_dims, int) else None,
        )
    except ValueError as exc:
        raise ModelError(
            f"{module.path} asks for a SpladePooling that poolkit-splade does not have: {exc}. "
            f"It has pooling_strategy {' or '.join(Pooling)} and activation_function {' or '.join(Activation)}."
        ) from exc
    return TaskModule(files)


def splade_files(model: ModelInfo) -> SpladeFiles:
    """Return what the files of a model say. A checkpoint without a SpladePooling is a SparseEncoder by default."""
    files = model.task_modules.get("SpladePooling", SpladeFiles())
    assert isinstance(files, SpladeFiles)
    return files


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot serve the task, or None where it can."""
    if model.architecture.endswith("ForMaskedLM"):
        return None
    return "it has no masked language model head"
