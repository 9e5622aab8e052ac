"""Models of images and texts, each made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image_models import make_image_model
from poolkit import LLM, ModelConfig, PluginConfig, create_app
from poolkit.pipeline.served import load_model
from serving import ask


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a checkpoint (see `image_models.make_image_model`)."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = make_image_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return make


@pytest.fixture
def load(image_model) -> Iterator[Callable[..., LLM]]:
    """Return a function that loads such a model; it is closed after the test."""
    loaded = []

    def load_one(family: str, **settings: object) -> LLM:
        loaded.append(LLM(str(image_model(family)), dtype="float32", device="cpu", **settings))
        return loaded[-1]

    yield load_one
    for llm in loaded:
        llm.close()


@pytest.fixture
def post(image_model) -> Iterator[Callable[..., object]]:
    """Return a function that asks such a model over HTTP and returns the response."""
    served = []

    def send(family: str, path: str, body: dict[str, object]) -> object:
        config = ModelConfig(model=str(image_model(family)), dtype="float32", device="cpu")
        served.append(load_model(config, PluginConfig()))
        return ask(create_app(served[-1]), "POST", path, json=body)

    yield send
    for one in served:
        one.close()
