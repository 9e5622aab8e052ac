"""Reads a model's files as a test does."""

from __future__ import annotations

import pytest

from poolkit.config import ModelConfig
from poolkit.errors import ModelError
from poolkit.models import read_model

__all__ = ["read", "refusal"]


def read(folder, **settings):
    """Return what the files say, with settings of `ModelConfig`."""
    return read_model(ModelConfig(model=str(folder), **settings))


def refusal(folder, **settings):
    """Return why they cannot be used."""
    with pytest.raises(ModelError) as caught:
        read(folder, **settings)
    return str(caught.value)
