"""Requests that the task answers or refuses, and the models that it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from m3_reference import WIDTH

from poolkit import LLM
from poolkit.errors import ModelError, RequestError, UnsupportedTaskError
from poolkit.testing import parametrize_with_checks

PLUGIN = "poolkit-bge-m3"


def load(folder: Path) -> LLM:
    return LLM(str(folder), task="bge_m3", enable=[PLUGIN], dtype="float32")


@pytest.fixture(scope="module")
def llm(m3: Path) -> Iterator[LLM]:
    with load(m3) as llm:
        yield llm


@pytest.fixture
def copy(m3: Path, tmp_path: Path) -> Path:
    """Return a copy of the model's folder, to be spoilt."""
    return Path(shutil.copytree(m3, tmp_path / "copy"))


def refusal(call: Callable[[], object], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_a_request_for_nothing_is_refused(llm):
    nothing = {"input": "a", "return_dense": False}

    assert refusal(lambda: llm.run("embeddings_m3", nothing, use_tqdm=False), RequestError) == (
        "return_dense, return_sparse and return_multi_vector are all false. Set at least one of them."
    )


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(llm):
    long = {"input": ["a", "a " * 300]}

    cut = llm.run("embeddings_m3", {**long, "truncate_prompt_tokens": -1}, use_tqdm=False)
    assert cut.usage.prompt_tokens == 3 + 256
    assert refusal(lambda: llm.run("embeddings_m3", {"input": "a " * 300}, use_tqdm=False), RequestError).startswith(
        "Prompt 0 has 302 tokens; "
    )


def test_no_texts_have_no_embeddings(llm):
    assert llm.run("embeddings_m3", {"input": []}, use_tqdm=False).data == []


def test_a_model_without_the_two_layers_is_refused(copy):
    (copy / "sparse_linear.pt").unlink()
    (copy / "colbert_linear.pt").unlink()

    assert refusal(lambda: load(copy), UnsupportedTaskError).partition("\n")[0] == (
        f"model {str(copy)!r} cannot serve 'bge_m3': its folder has no sparse_linear.pt and no colbert_linear.pt."
    )


def test_a_file_that_holds_more_than_weights_is_refused(copy):
    torch.save({"weight": Path("anything")}, copy / "sparse_linear.pt")

    message = refusal(lambda: load(copy), ModelError)
    assert message.startswith(f"{copy / 'sparse_linear.pt'} cannot be read: ")
    assert message.endswith("Fetch the model again.")


@pytest.mark.parametrize(
    ("name", "layer", "found", "expected"),
    [
        ("sparse_linear.pt", torch.nn.Linear(WIDTH, 2), f"(2, {WIDTH}), 'bias': (2,)", "1"),
        ("colbert_linear.pt", torch.nn.Linear(7, 8), "(8, 7), 'bias': (8,)", "dim"),
    ],
)
def test_a_layer_of_another_shape_is_refused(copy, name, layer, found, expected):
    torch.save(layer.state_dict(), copy / name)

    assert refusal(lambda: load(copy), ModelError) == (
        f"{copy / name} holds {{'weight': {found}}}; it must hold a weight of shape ({expected}, {WIDTH}) and a bias "
        f"of shape ({expected},). Fetch the model again."
    )


@parametrize_with_checks(PLUGIN)
def test_the_plugin_keeps_the_contract(check):
    check()
