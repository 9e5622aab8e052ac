"""Requests and models that are refused, and the same answers offline and online."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from listwise_reference import LONGEST, QUERY, WIDTH, texts
from safetensors.torch import load_file, save_file

from poolkit import LLM, ModelConfig, PluginConfig, PoolingParams, create_app
from poolkit.config import Reference
from poolkit.errors import ModelError, RequestError, UnsupportedTaskError
from poolkit.pipeline.served import load_model
from poolkit.server import App
from poolkit.testing import parametrize_with_checks

PLUGIN = "poolkit-jina-reranker-v3"
DOCUMENTS = texts()[-5:]
TOLERANCE = 1e-5
"""Prompts may meet in other batches, whose float32 sums are added up in another order."""


def load(folder: Path) -> LLM:
    return LLM(str(folder), task="listwise_rerank", enable=[PLUGIN], dtype="float32")


@pytest.fixture(scope="module")
def llm(jina: Path) -> Iterator[LLM]:
    with load(jina) as llm:
        yield llm


@pytest.fixture
def copy(jina: Path, tmp_path: Path) -> Path:
    """Return a copy of the model's folder, to be spoilt."""
    return Path(shutil.copytree(jina, tmp_path / "copy"))


def refusal(call: Callable[[], object], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def refused(llm: LLM, operation: str, **fields: object) -> str:
    return refusal(lambda: llm.run(operation, fields, use_tqdm=False), RequestError)


def test_prompts_cannot_be_cut_as_a_whole(llm):
    assert refused(llm, "rerank", query=QUERY, documents=DOCUMENTS, truncate_prompt_tokens=100) == (
        "truncate_prompt_tokens is 100, but a prompt here holds a query and many documents, each cut by itself. Set "
        "max_tokens_per_query and max_tokens_per_doc instead."
    )
    whatever_is_long = {"query": QUERY, "documents": DOCUMENTS, "truncate_prompt_tokens": -1}
    assert len(llm.run("rerank", whatever_is_long, use_tqdm=False).results) == 5


def test_queries_and_documents_must_go_together(llm):
    assert refused(llm, "score", queries=["a", "b"], documents=["a", "b", "c"]) == (
        "Input lengths must be either 1:1, 1:N or N:N; there are 2 queries and 3 documents."
    )


def test_a_query_that_leaves_no_room_for_documents_is_refused(llm):
    message = refused(llm, "rerank", query="folder " * 1000, documents=["a"], max_tokens_per_query=LONGEST)

    assert re.fullmatch(
        r"What .* reads before and after the documents, with the query twice in it, has \d{4} tokens; it takes at most "
        rf"{LONGEST} in all\. Set max_tokens_per_query, or shorten the instruction\.",
        message,
    )


def test_a_text_that_is_not_valid_unicode_is_refused(llm):
    assert refused(llm, "rerank", query="a", documents=["a", "b\ud800"]) == (
        "Prompt 1: the text holds a lone surrogate (U+D800) at character 1; it is not valid Unicode"
    )


def test_a_model_of_another_architecture_is_refused(copy):
    config = json.loads((copy / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3ForCausalLM"]}), "utf-8")

    assert refusal(lambda: load(copy), UnsupportedTaskError).partition("\n")[0] == (
        f"model {str(copy)!r} cannot serve 'listwise_rerank': its architecture is 'Qwen3ForCausalLM', not "
        "'JinaForRanking'."
    )


def test_a_model_without_a_projector_is_refused(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["projector.2.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    assert refusal(lambda: load(copy), ModelError) == (
        f"{copy} has no projector.2.weight in model.safetensors, so {copy} is no complete jina-reranker-v3. Fetch the "
        "model again; other formats than safetensors are not read."
    )


def test_a_projector_of_another_width_is_refused(copy):
    weights = load_file(copy / "model.safetensors")
    weights["projector.0.weight"] = torch.zeros(24, 7)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    assert refusal(lambda: load(copy), ModelError) == (
        f"The weights in {copy} hold projector.0.weight of shape (24, 7) and projector.2.weight of shape (20, 24); "
        f"they must be (middle, {WIDTH}) and (dim, middle). Fetch it again."
    )


def test_a_file_of_weights_that_cannot_be_read_is_named(copy):
    (copy / "model.safetensors").write_bytes(b"\x00")

    message = refusal(lambda: load(copy), ModelError)
    assert message.startswith(f"{copy / 'model.safetensors'} cannot be read: ")
    assert message.endswith("Fetch the model again.")


def test_a_tokenizer_without_markers_is_refused(copy):
    for path in (copy / "tokenizer.json", copy / "tokenizer_config.json"):
        path.write_text(path.read_text("utf-8").replace("<|embed_token|>", "<|other_token|>"), "utf-8")

    assert refusal(lambda: load(copy), ModelError) == (
        f"The tokenizer in {copy} has no token <|embed_token|>, so {copy} is no complete jina-reranker-v3. Fetch the "
        "model again."
    )


@pytest.fixture(scope="module")
def app(jina: Path) -> Iterator[App]:
    """Yield a server of the model."""
    plugins = PluginConfig(enable=(Reference(PLUGIN, f"--plugin {PLUGIN}"),))
    served = load_model(ModelConfig(model=str(jina), task="listwise_rerank", dtype="float32"), plugins)
    yield create_app(served)
    served.close()


def post(app: App, path: str, body: object) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post(path, json=body)

    return asyncio.run(send())


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/tasks/listwise_rerank/rerank"])
def test_a_server_reranks_as_an_offline_call_does(app, llm, path):
    online = post(app, path, {"query": QUERY, "documents": DOCUMENTS, "top_n": 3})
    offline = llm.rerank(QUERY, DOCUMENTS, top_n=3, use_tqdm=False)

    assert online.status_code == 200
    assert [(one["index"], one["relevance_score"]) for one in online.json()["results"]] == [
        (one.index, pytest.approx(one.relevance_score, abs=TOLERANCE)) for one in offline
    ]


@pytest.mark.parametrize("queries", [QUERY, DOCUMENTS[::-1]])
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_a_server_scores_as_an_offline_call_does(app, llm, path, queries):
    online = post(app, path, {"queries": queries, "documents": DOCUMENTS})
    offline = llm.score(queries, DOCUMENTS, use_tqdm=False)

    assert online.status_code == 200
    assert [one["score"] for one in online.json()["data"]] == [
        pytest.approx(one.outputs.score, abs=TOLERANCE) for one in offline
    ]


def test_parameters_that_a_scored_list_cannot_have_are_refused(llm):
    assert refusal(
        lambda: llm.rerank(QUERY, DOCUMENTS, pooling_params=PoolingParams(dimensions=8), use_tqdm=False), RequestError
    ).startswith("The task 'listwise_rerank' does not know dimensions. It knows use_activation, ")
    assert refused(llm, "rerank", query=QUERY, documents=DOCUMENTS, pooling_params=(PoolingParams(),) * 5) == (
        "pooling_params has 5 items for 1 prompts. Give one for all of them, or one per prompt."
    )


@parametrize_with_checks(PLUGIN)
def test_the_plugin_keeps_the_contract(check):
    check()
