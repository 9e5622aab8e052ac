"""No network, and a jina-reranker-v3 with random weights, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read when huggingface_hub is imported: a test that asks the hub for anything gets the same answer everywhere.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def jina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with all files of jina-reranker-v3."""
    from listwise_reference import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("jina"))
