"""No network, tiny NLI models that are made once a session, and a server without weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from zero_shot_asking import post

from poolkit import create_app
from poolkit.server import App
from poolkit.testing import fake_model

# Read when huggingface_hub is imported: a test that asks the hub for anything gets the same answer everywhere.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def nli_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes the checkpoint of a family, each once a session."""
    from nli_checkpoints import make_nli_checkpoint

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = make_nli_checkpoint(tmp_path_factory.mktemp(family), family)
        return made[family]

    return make


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    """Yield a server of the task."""
    with fake_model("zero_shot", plugin="poolkit-zero-shot") as served:
        yield create_app(served)


@pytest.fixture
def ask(app: App) -> Callable[[str, object], httpx.Response]:
    """Return a function that posts JSON to the server, in this process."""
    return partial(post, app)
