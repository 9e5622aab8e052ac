"""Requests that the task answers or refuses, offline and online."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from poolkit_splade import IndexedWeights, SparseEmbeddingsResponse
from splade_reference import make_checkpoint

from poolkit import LLM
from poolkit.errors import RequestError, UnsupportedTaskError
from poolkit.testing import parametrize_with_checks

PLUGIN = "poolkit-splade"
TEXT = "A cat sat on the mat."
WEIGHTS = {"mat": 2.3896, "cat": 2.3783, "sat": 1.9751, "cats": 1.9198, "sit": 1.2040, "lamb": 0.7125, "on": 0.4853}
"""The highest weights of `TEXT`, as test_splade_weights.py holds them against plain transformers."""


@pytest.fixture(scope="module")
def llm(tiny_splade: Path) -> Iterator[LLM]:
    with LLM(str(tiny_splade), task="splade", enable=[PLUGIN], dtype="float32") as llm:
        yield llm


def ask(llm: LLM, **fields: object) -> SparseEmbeddingsResponse:
    response = llm.run("sparse_embeddings", {"input": TEXT, **fields}, use_tqdm=False)
    assert isinstance(response, SparseEmbeddingsResponse)
    return response


def test_weights_are_by_token_with_the_highest_first(llm):
    [weights] = ask(llm, top_k=len(WEIGHTS)).embeddings

    assert list(weights) == list(WEIGHTS)
    assert weights == pytest.approx(WEIGHTS, abs=1e-4)


def test_weights_can_be_by_token_id_in_ascending_order(llm, tiny_splade):
    from transformers import AutoTokenizer

    [indexed], [weights] = ask(llm, format="indices").embeddings, ask(llm).embeddings

    assert isinstance(indexed, IndexedWeights)
    assert indexed.indices == sorted(indexed.indices)
    tokens = AutoTokenizer.from_pretrained(tiny_splade).convert_ids_to_tokens(indexed.indices)
    assert dict(zip(tokens, indexed.values, strict=True)) == pytest.approx(weights, abs=1e-5)  # two runs in float32


def test_only_weights_above_the_threshold_are_kept(llm):
    assert list(ask(llm, threshold=1.0).embeddings[0]) == ["mat", "cat", "sat", "cats", "sit"]
    assert ask(llm, threshold=100).embeddings == [{}]
    assert ask(llm, threshold=100, format="indices").embeddings == [IndexedWeights(indices=[], values=[])]


def test_the_operator_says_what_holds_where_a_request_leaves_it_open(tiny_splade):
    settings = {PLUGIN: {"top_k": 3, "threshold": 2.0}}
    with LLM(str(tiny_splade), task="splade", enable=[PLUGIN], plugins=settings, dtype="float32") as llm:
        assert list(ask(llm).embeddings[0]) == ["mat", "cat"]
        assert list(ask(llm, threshold=0).embeddings[0]) == ["mat", "cat", "sat"]
        assert list(ask(llm, top_k=1).embeddings[0]) == ["mat"]


def test_several_texts_are_answered_in_their_order(llm):
    both = ask(llm, input=[TEXT, "Stock prices fell."], top_k=2)

    assert [list(weights) for weights in both.embeddings] == [["mat", "cat"], ["price", "stock"]]
    assert both.usage.prompt_tokens == 15
    assert ask(llm, input=[]).embeddings == []


def test_an_id_without_a_token_is_named_by_its_number(tmp_path, tiny_splade):
    folder = make_checkpoint(tmp_path, like=tiny_splade, vocab_size=30528)
    with LLM(str(folder), task="splade", enable=[PLUGIN], dtype="float32") as llm:
        [weights] = ask(llm).embeddings
        [indexed] = ask(llm, format="indices").embeddings

    padding = [token_id for token_id in indexed.indices if token_id >= 30522]
    assert padding
    assert {f"<{token_id}>" for token_id in padding} <= weights.keys()
    assert len(weights) == len(indexed.indices)


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(llm):
    long = "cat " * 600

    assert ask(llm, input=long, truncate_prompt_tokens=-1).usage.prompt_tokens == 512
    with pytest.raises(RequestError, match=r"^Prompt 0 has 602 tokens; .* takes at most 512\. "):
        ask(llm, input=long)


def test_a_model_without_a_masked_language_model_head_is_refused(tmp_path, tiny_splade):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(tiny_splade).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_splade).save_pretrained(tmp_path)

    with pytest.raises(UnsupportedTaskError) as caught:
        LLM(str(tmp_path), task="splade", enable=[PLUGIN])

    assert str(caught.value).partition("\n")[0] == (
        f"model {str(tmp_path)!r} cannot serve 'splade': it has no masked language model head."
    )


def test_a_server_answers_at_the_tasks_own_route(server):
    answer = server.post("/splade/sparse_embeddings", json={"input": TEXT, "top_k": 2})
    indexed = server.post("/tasks/splade/sparse_embeddings", json={"input": TEXT, "top_k": 2, "format": "indices"})
    wrong = server.post("/splade/sparse_embeddings", json={"input": TEXT, "top_k": 0})

    assert answer.json() == {
        "embeddings": [pytest.approx({"mat": 2.3896, "cat": 2.3783}, abs=1e-4)],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
    [weights] = indexed.json()["embeddings"]
    assert weights == {"indices": [4937, 13523], "values": pytest.approx([2.3783, 2.3896], abs=1e-4)}
    assert wrong.status_code == 400
    assert "top_k" in wrong.json()["error"]["message"]


@parametrize_with_checks(PLUGIN)
def test_the_plugin_keeps_the_contract(check):
    check()


@pytest.fixture
def server(tiny_splade: Path) -> Iterator[httpx.Client]:
    """Yield a client of  poolkit serve  in a process of its own."""
    command = [str(Path(sys.executable).with_name("poolkit")), "serve", str(tiny_splade), "--port", "0"]
    command += ["--plugin", PLUGIN, "--task", "splade", "--dtype", "float32"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        told = ""
        found = None
        while found is None:
            line = process.stdout.readline()
            assert line, told
            told += line
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
        # It tells its port just before it listens there.
        with httpx.Client(base_url=found[0], transport=httpx.HTTPTransport(retries=5)) as client:
            yield client
        process.terminate()
        process.communicate()
