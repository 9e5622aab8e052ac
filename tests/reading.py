"""Reads a model's files as a test does."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from poolkit.config import ModelConfig, PluginConfig
from poolkit.errors import ModelError
from poolkit.models import ModelTables, read_model
from poolkit.registry import MODELS, Registry

if TYPE_CHECKING:
    from poolkit.contract import ModelInfo

__all__ = ["read", "refusal", "tables"]


@cache
def tables() -> ModelTables:
    """Return poolkit's own entries."""
    registry = Registry.load(PluginConfig())
    return ModelTables(**{kind: registry.entries(MODELS, kind) for kind in ModelTables.__dataclass_fields__})


def read(folder, **settings) -> ModelInfo:
    """Return what the files say, with settings of `ModelConfig`."""
    return read_model(ModelConfig(model=str(folder), **settings), tables())


def refusal(folder, **settings):
    """Return why they cannot be used."""
    with pytest.raises(ModelError) as caught:
        read(folder, **settings)
    return str(caught.value)
