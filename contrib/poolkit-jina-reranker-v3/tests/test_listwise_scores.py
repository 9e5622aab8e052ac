"""The scores are those of the model's own `rerank`, in one block and in several, whole and cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from listwise_reference import LONGEST, QUERY, Reference, make_shards, texts
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from poolkit import LLM, RerankResponse, ScoreResponse

TOLERANCE = 1e-5
"""Packed and padded batches add up the same float32 sums in another order."""
MAX_DOC = 600
"""The default of 2048 tokens is made for prompts of 131 072; those of the model here are no longer than that."""
INSTRUCTION = "A method is relevant if it writes to the disk."


def load(folder: Path, *, batching: str = "auto", max_tokens_per_doc: int = MAX_DOC, **settings: int) -> LLM:
    return LLM(
        str(folder),
        task="listwise_rerank",
        enable=["poolkit-jina-reranker-v3"],
        plugins={"poolkit-jina-reranker-v3": {"max_tokens_per_doc": max_tokens_per_doc, **settings}},
        dtype="float32",
        device="cpu",
        batching=batching,
    )


@pytest.fixture(scope="module")
def reference(jina: Path) -> Reference:
    return Reference(jina)


@pytest.fixture(scope="module")
def llm(jina: Path) -> Iterator[LLM]:
    with load(jina) as llm:
        yield llm


def ask(llm: LLM, queries: str | list[str], documents: list[str], **fields: object) -> ScoreResponse:
    response = llm.run("score", {"queries": queries, "documents": documents, **fields}, use_tqdm=False)
    assert isinstance(response, ScoreResponse)
    return response


def rerank(llm: LLM, documents: list[str], **fields: object) -> RerankResponse:
    response = llm.run("rerank", {"query": QUERY, "documents": documents, **fields}, use_tqdm=False)
    assert isinstance(response, RerankResponse)
    return response


def long_documents(count: int) -> list[str]:
    """Return documents of some 220 tokens, no two alike."""
    words = " ".join(texts()).split()
    return [" ".join(words[place : place + 100]) for place in range(0, 40 * count, 40)]


def assert_close(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_documents_of_one_block_score_as_in_the_models_own_code(jina, reference, batching):
    documents = texts()[:30]
    with load(jina, batching=batching) as llm:
        ours = ask(llm, QUERY, documents)

    expected = reference.scores(QUERY, [documents])
    assert_close(ours.scores, expected)
    assert len(set(expected.round(3))) > 25  # else the comparison would say nothing
    prompt = reference.tokenizer(reference.prompt(QUERY, documents))["input_ids"]
    assert [ids.tolist() for ids in ours.prompt_token_ids] == [prompt] * 30
    assert ours.usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_documents_of_several_blocks_score_as_in_the_models_own_code(jina, reference, batching):
    documents = texts()[:30]
    with load(jina, batching=batching, max_docs_per_prompt=7) as llm:
        ours = ask(llm, QUERY, documents)

    query, blocks = reference.blocks(QUERY, documents, max_doc=MAX_DOC, block_size=7)
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    assert_close(ours.scores, reference.scores(query, blocks))
    assert np.abs(ours.scores - reference.scores(query, [documents])).max() > 0.01


@pytest.mark.parametrize("question", [QUERY, QUERY * 12], ids=["short query", "long query"])
def test_long_documents_are_read_in_the_same_blocks_as_in_the_models_own_code(llm, reference, question):
    documents = long_documents(15)
    ours = ask(llm, question, documents, max_tokens_per_doc=900)

    query, blocks = reference.blocks(question, documents, max_doc=900)
    assert len(blocks) > 1
    assert_close(ours.scores, reference.scores(query, blocks))


def test_blocks_end_where_the_models_own_code_would_go_beyond_the_longest_prompt(llm, reference):
    documents = [f"{text} {place}" for place, text in enumerate(texts() * 2)]
    query, [theirs, *_] = reference.blocks(QUERY, documents, max_doc=100)
    assert len(reference.tokenizer(reference.prompt(query, theirs))["input_ids"]) > LONGEST

    ours = ask(llm, QUERY, documents, max_tokens_per_doc=100)

    cut = iter([reference.cut(document, 100)[0] for document in documents])
    blocks = [[next(cut) for _ in block] for _, block in groupby(map(tuple, ours.prompt_token_ids))]
    assert max(map(len, ours.prompt_token_ids)) <= LONGEST
    assert len(blocks) > 2
    assert_close(ours.scores, reference.scores(QUERY, blocks))


@pytest.mark.parametrize("longest", [1, 7, 20])
def test_long_texts_are_cut_as_in_the_models_own_code(llm, reference, longest):
    documents = [
        "😀" * 40,
        "cafe\u0301 " * 30,
        "東京タワー" * 20,
        "a <|embed_token|> b " * 20,
        "short",
        *long_documents(1),
    ]
    ours = ask(llm, QUERY * 3, documents, max_tokens_per_doc=longest, max_tokens_per_query=longest)

    query, blocks = reference.blocks(QUERY * 3, documents, max_query=longest, max_doc=longest)
    assert_close(ours.scores, reference.scores(query, blocks))


def test_what_the_operator_says_of_lengths_holds_where_a_request_is_silent(jina, llm):
    documents = long_documents(3)
    with load(jina, max_tokens_per_doc=30, max_tokens_per_query=4) as short:
        ours = ask(short, QUERY, documents)
        whole = ask(short, QUERY, documents, max_tokens_per_doc=MAX_DOC, max_tokens_per_query=500)

    assert_close(ours.scores, ask(llm, QUERY, documents, max_tokens_per_doc=30, max_tokens_per_query=4).scores)
    assert_close(whole.scores, ask(llm, QUERY, documents).scores)


def test_the_start_of_a_long_text_can_be_dropped_instead_of_its_end(llm, reference):
    [document] = long_documents(1)
    ids = reference.tokenizer(document)["input_ids"]
    ours = ask(llm, QUERY, [document, "short"], max_tokens_per_doc=20, truncation_side="left")

    assert_close(ours.scores, reference.scores(QUERY, [[reference.tokenizer.decode(ids[-20:]), "short"]]))


def test_an_instruction_stands_in_the_prompt(llm, reference):
    documents = texts()[:6]
    ours = ask(llm, QUERY, documents, instruction=INSTRUCTION)

    assert_close(ours.scores, reference.scores(QUERY, [documents], instruction=INSTRUCTION))
    assert np.abs(ours.scores - ask(llm, QUERY, documents).scores).max() > 0.01


def test_a_document_is_read_together_with_those_before_it(llm):
    documents = texts()[-3:]

    alone = ask(llm, QUERY, documents[-1:]).scores
    assert np.abs(ask(llm, QUERY, documents).scores[-1] - alone[0]) > 0.01


def test_several_queries_are_scored_pair_by_pair(llm, reference):
    queries, documents = ["make a folder", "read a file", QUERY], texts()[-3:]
    ours = ask(llm, queries, documents)

    expected = [reference.scores(query, [[document]])[0] for query, document in zip(queries, documents, strict=True)]
    assert_close(ours.scores, np.array(expected))
    assert len(set(map(tuple, ours.prompt_token_ids))) == 3


def test_markers_in_the_texts_count_for_nothing(llm):
    documents = texts()[-4:]
    expected = ask(llm, QUERY, documents).scores
    spoilt = [
        f"<|embed_token|>{documents[0]}",
        f"{documents[1]}<|rerank_token|><|embed_token|>",
        f"<|embed_<|rerank_token|>token|>{documents[2]}",
        f"{documents[3]}",
    ]

    ours = ask(llm, f"<|rerank_token|>{QUERY}<|embed_token|>", spoilt).scores
    # What is left of a marker inside a marker is a space: the model's own code would be left with a marker.
    nested = ask(llm, QUERY, [*documents[:3], f"<|rerank_<|embed_token|>token|>{documents[3]}"]).scores
    spaced = ask(llm, QUERY, [*documents[:3], f" {documents[3]}"]).scores

    assert_close(ours, expected)
    assert_close(nested, spaced)


def test_results_are_sorted_and_say_where_each_document_stood(llm):
    documents = texts()[:12]
    scores = ask(llm, QUERY, documents).scores
    results = rerank(llm, documents).results

    # Two runs agree to the tolerance, so documents that are that close may stand either way round.
    ranked = [one.relevance_score for one in results]
    assert ranked == sorted(ranked, reverse=True)
    assert sorted(one.index for one in results) == list(range(12))
    assert_close(np.array(ranked), scores[[one.index for one in results]])
    assert [one.document for one in results] == [documents[one.index] for one in results]


@pytest.mark.parametrize(("top_n", "count"), [(None, 5), (0, 5), (2, 2), (9, 5)])
def test_only_the_best_are_returned_where_that_is_asked(llm, top_n, count):
    documents = texts()[:5]

    best, whole = rerank(llm, documents, top_n=top_n).results, rerank(llm, documents).results
    top = [one.relevance_score for one in whole[:count]]
    assert [one.relevance_score for one in best] == pytest.approx(top, abs=TOLERANCE)
    by_index = {one.index: one for one in whole}
    for one in best:
        assert one.relevance_score == pytest.approx(by_index[one.index].relevance_score, abs=TOLERANCE)
        assert one.document == by_index[one.index].document


def test_equal_scores_keep_the_order_of_the_request(jina, tmp_path):
    folder = Path(shutil.copytree(jina, tmp_path / "equal"))
    weights = load_file(folder / "model.safetensors")
    weights["projector.2.weight"] = weights["projector.2.weight"] * 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with load(folder) as llm:
        results = rerank(llm, texts()[:20]).results

    assert [(one.index, one.relevance_score) for one in results] == [(index, 0.0) for index in range(20)]


def test_no_documents_have_no_scores(llm):
    assert rerank(llm, []).model_dump() == {"results": [], "usage": {"prompt_tokens": 0, "total_tokens": 0}}
    assert ask(llm, QUERY, []).scores.shape == (0,)
    assert ask(llm, [], []).scores.shape == (0,)


def test_weights_in_several_files_give_the_same(jina, llm, tmp_path):
    folder = make_shards(tmp_path / "shards", jina)
    assert len(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]) > 10

    with load(folder) as sharded:
        assert_close(ask(sharded, QUERY, texts()[:5]).scores, ask(llm, QUERY, texts()[:5]).scores)
