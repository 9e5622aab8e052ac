"""Long texts, in chunks: what comes of them, and what is left alone."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from transformers import AutoTokenizer

from closeness import assert_close
from engines import encode_prompts
from poolkit import (
    LLM,
    EmbeddingsRequest,
    PoolerConfig,
    PoolingParams,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
    TokenInputs,
    create_app,
)
from poolkit.errors import BatchError, EngineError, PluginConfigError, PluginLoadError, RequestError
from poolkit.testing import FakeBackbone, FakeTokenizer, fake_model
from serving import ask, ids_in

TOLERANCE = 1e-5
"""Sums in another order differ in float32 by 6e-7 at most here; the promise is 1e-5."""

START, END = 0, 1
"""The special tokens that the fake tokenizer puts around a text."""


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def ids_of(count: int) -> list[int]:
    """Return the fake tokenizer's ids of so many words, without special tokens."""
    return FakeTokenizer().encode_batch([words(count)], add_special_tokens=False)[0].tolist()


def chunking(**settings: object):
    return fake_model("embed", plugin="chunking", settings=settings)


def embed(served, *prompts: object, **fields: object):
    return served.run("embeddings", EmbeddingsRequest(input=list(prompts), **fields))


def average(chunks, vectors):
    return np.average(vectors, axis=0, weights=[len(chunk) for chunk in chunks])


@pytest.fixture
def text() -> str:
    return " ".join(f"The {number}. sentence speaks of rivers, engines and the price of salt." for number in range(60))


@pytest.mark.usefixtures("one_thread")
def test_the_vector_of_a_long_text_is_the_normalised_average_of_its_chunks_raw_vectors(minilm, text):
    cls, *body, sep = AutoTokenizer.from_pretrained(minilm)(text, truncation=False, verbose=False)["input_ids"]
    chunks = [[cls, *body[start : start + 254], sep] for start in range(0, len(body), 254)]
    assert len(chunks) > 3
    with LLM() as llm:
        raw = [
            output.outputs.embedding
            for output in llm.embed(chunks, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
        ]
        [alone] = llm.embed("short", use_tqdm=False)
    expected = average(chunks, raw)

    with LLM(enable=["chunking"]) as llm:
        long, short = llm.embed([text, "short"], use_tqdm=False)
        [unnormalised] = llm.embed(text, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)

    assert np.abs(long.outputs.embedding - expected / np.linalg.norm(expected)).max() < TOLERANCE
    assert np.abs(unnormalised.outputs.embedding - expected).max() < TOLERANCE
    assert np.abs(short.outputs.embedding - alone.outputs.embedding).max() < TOLERANCE
    assert long.outputs.embedding.dtype == np.float32
    assert list(long.prompt_token_ids) == [token_id for chunk in chunks for token_id in chunk]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("is_flash", [True, False])
def test_late_interaction_scores_a_long_document_by_the_token_vectors_of_all_its_chunks(minilm, text, is_flash):
    cls, *body, sep = AutoTokenizer.from_pretrained(minilm)(text, truncation=False, verbose=False)["input_ids"]
    chunks = [[cls, *body[start : start + 254], sep] for start in range(0, len(body), 254)]
    query = "What does salt cost?"
    with LLM(task="token_embed") as llm:
        asked, *vectors = [output.outputs.data for output in llm.encode([query, *chunks], use_tqdm=False)]
    expected = (asked @ np.concatenate(vectors).T).max(axis=1).sum()

    pooler = PoolerConfig(enable_flash_late_interaction=is_flash)
    with LLM(task="token_embed", enable=["chunking"], pooler_config=pooler) as llm:
        [long, _] = llm.score(query, [text, "short"], use_tqdm=False)
        [whole] = llm.encode(text, use_tqdm=False)
        best = llm.rerank(query, ["short", text], use_tqdm=False)[0]

    assert abs(long.outputs.score - expected) < TOLERANCE * len(asked)
    assert np.abs(whole.outputs.data - np.concatenate(vectors)).max() < TOLERANCE
    assert best.index == 1


def test_a_text_that_fits_runs_as_it_would_without_the_plugin(serve):
    with serve() as plain, serve("chunking") as chunked:
        expected, got = embed(plain, "a short text"), embed(chunked, "a short text")
    assert_close(got.embeddings, expected.embeddings)
    assert (ids_in(got), got.usage) == (ids_in(expected), expected.usage)


def test_a_server_answers_a_long_text_and_counts_what_ran():
    with chunking() as served:
        answer = ask(create_app(served), "POST", "/v1/embeddings", json={"input": words(150)})
        vector = embed(served, words(150)).embeddings[0]
    assert answer.status_code == 200
    assert np.allclose(answer.json()["data"][0]["embedding"], vector, atol=1e-6)
    assert answer.json()["usage"] == {"prompt_tokens": 150 + 2 * 3, "total_tokens": 150 + 2 * 3}


def test_the_operator_can_have_vectors_that_are_not_normalised(serve):
    with serve("chunking", pooler=PoolerConfig(use_activation=False)) as served:
        by_default, on = embed(served, words(90)), embed(served, words(90), use_activation=True)
    length = np.linalg.norm(by_default.embeddings)
    assert length != pytest.approx(1)
    assert np.abs(by_default.embeddings / length - on.embeddings).max() < TOLERANCE


def test_a_shortened_vector_is_normalised_after_it_is_cut():
    with chunking(max_chunk_tokens=12) as served:
        raw = embed(served, words(30), use_activation=False).embeddings[0]
        short = embed(served, words(30), dimensions=3).embeddings[0]
    assert short == pytest.approx(raw[:3] / np.linalg.norm(raw[:3]), abs=1e-6)


@pytest.mark.parametrize(
    ("count", "settings", "expected"),
    [
        (62, {}, [(0, 62)]),
        (63, {}, [(0, 62), (62, 63)]),
        (8, {"max_chunk_tokens": 10}, [(0, 8)]),
        (9, {"max_chunk_tokens": 10}, [(0, 8), (8, 9)]),
        (9, {"max_chunk_tokens": 10, "overlap_tokens": 3}, [(0, 8), (5, 9)]),
        (13, {"max_chunk_tokens": 10, "overlap_tokens": 3}, [(0, 8), (5, 13)]),
        (14, {"max_chunk_tokens": 10, "overlap_tokens": 3}, [(0, 8), (5, 13), (10, 14)]),
    ],
)
def test_each_chunk_is_filled_and_has_its_special_tokens(count, settings, expected):
    ids = ids_of(count)
    with chunking(**settings) as served:
        response = embed(served, words(count))
    chunks = [[START, *ids[start:end], END] for start, end in expected]
    assert ids_in(response) == [[token_id for chunk in chunks for token_id in chunk]]
    assert response.usage.prompt_tokens == sum(map(len, chunks))


def test_token_ids_are_cut_like_their_text_and_get_special_tokens_only_where_they_have_them():
    bare = ids_of(70)
    with chunking() as served:
        response = embed(served, words(70), [START, *bare, END], bare)
    assert np.array_equal(response.embeddings[0], response.embeddings[1])
    assert ids_in(response)[2] == bare


def test_a_request_that_wants_its_prompts_truncated_gets_no_chunks():
    with chunking(max_chunk_tokens=10) as served:
        response = embed(served, words(40), truncate_prompt_tokens=20)
    assert len(response.prompt_token_ids[0]) == 20


def test_prompts_keep_their_order_around_a_long_one():
    texts = ["first", words(200), "third", words(90)]
    with chunking() as served:
        together = embed(served, *texts).embeddings
        alone = [embed(served, text).embeddings[0] for text in texts]
    assert np.array_equal(together, np.stack(alone))


def test_a_bad_prompt_fails_alone_among_short_ones():
    with chunking() as served, pytest.raises(BatchError) as caught:
        embed(served, "good", [5000])
    assert caught.value.errors.keys() == {1}
    assert caught.value.outputs[0] is not None


def test_a_bad_prompt_fails_alone_beside_one_that_runs_in_chunks():
    with chunking() as served, pytest.raises(BatchError) as caught:
        embed(served, words(100), [])
    assert {index: str(error) for index, error in caught.value.errors.items()} == {
        1: "Prompt 1 is empty: it has no tokens, and this model's tokenizer adds none. Send some text."
    }
    assert caught.value.outputs[0] is not None


def test_a_chunk_on_which_the_model_fails_fails_its_prompt_alone():
    def backbone(task):
        return FakeBackbone(task, fails_on=lambda prompt: len(prompt.token_ids) < 10)

    with (
        fake_model("embed", plugin="chunking", settings={}, backbone=backbone) as served,
        pytest.raises(BatchError) as caught,
    ):
        embed(served, words(20), words(65))
    assert {index: type(error) for index, error in caught.value.errors.items()} == {1: EngineError}
    assert caught.value.outputs[0] is not None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_chunk_tokens": 65}, "max_chunk_tokens is 65; fake takes at most 64"),
        (
            {"max_chunk_tokens": 10, "overlap_tokens": 8},
            "2 special tokens and overlap_tokens = 8 leave nothing of a chunk of 10 tokens",
        ),
    ],
)
def test_chunks_that_cannot_be_are_refused_at_start_up(settings, reason):
    with pytest.raises(PluginLoadError) as caught, chunking(**settings):
        pass
    assert str(caught.value).splitlines()[0] == f"poolkit-chunking 0.1.0 failed in poolkit_wrap: ValueError: {reason}"


def test_an_unknown_setting_is_refused():
    with pytest.raises(PluginConfigError) as caught, chunking(overlap=3):
        pass
    assert str(caught.value) == (
        "[plugins.poolkit-chunking] overlap: no such setting. "
        "Did you mean 'overlap_tokens'? Settings: combine, max_chunk_tokens, overlap_tokens."
    )


@pytest.mark.parametrize(("settings", "combine"), [({}, np.max), ({"combine": "mean"}, np.mean)])
def test_scores_are_the_best_or_the_mean_over_the_chunks(install_grade, settings, combine):
    install_grade("LOGITS")
    ids = ids_of(150)
    chunks = [[START, *ids[start : start + 62], END] for start in (0, 62, 124)]
    with fake_model("grade", plugin="chunking", settings=settings) as served:
        [long, *each] = served.run("pooling", PoolingRequest(input=[words(150), *chunks])).data
    assert long == pytest.approx(combine(each, axis=0), abs=1e-6)


def test_outputs_that_cannot_be_combined_are_left_alone(install_grade, caplog):
    install_grade("TOKEN_LOGITS")
    with (
        caplog.at_level(logging.INFO, "poolkit_plugins"),
        fake_model("grade", plugin="chunking") as served,
        pytest.raises(RequestError, match="has 72 tokens"),
    ):
        served.run("pooling", PoolingRequest(input=words(70)))
    assert caplog.messages == [
        f"Operation {operation!r} of task 'grade' is not chunked: outputs of kind token_logits cannot be put together."
        for operation in ("pooling", "pairs", "lengths")
    ]


def pair_ids(first: list[int], second: list[int]) -> TokenInputs:
    """Return a pair as the fake tokenizer writes it."""
    ids = [START, *first, END, *second, END]
    return TokenInputs(ids, [0] * (len(first) + 2) + [1] * (len(second) + 1))


@pytest.mark.parametrize(("settings", "combine"), [({}, np.max), ({"combine": "mean"}, np.mean)])
def test_of_a_pair_the_second_text_is_cut_and_the_first_goes_before_each_chunk(install_grade, settings, combine):
    install_grade("LOGITS")
    [query], document = ids_of(1), ids_of(100)
    chunks = [pair_ids([query], document[start : start + 60]) for start in (0, 60)]
    with fake_model("grade", plugin="chunking", settings=settings) as served:
        [long] = served.run("pairs", PoolingRequest(input=f"{words(1)}|{words(100)}")).data
        encoder = served.operations["pairs"].processor.context.encoder
    encoded = encode_prompts(encoder, chunks, [PoolingParams()] * len(chunks), first_index=0)
    with fake_model("grade") as plain:
        each = [output.data for output in plain._engine.forward(encoded)]
    assert long == pytest.approx(combine(each, axis=0), abs=1e-6)


def test_a_cross_encoder_ranks_a_long_document_by_its_best_chunk():
    every_word = words(150).split()
    room = 64 - 3 - 1  # what three special tokens and the query leave
    chunks = [" ".join(every_word[start : start + room]) for start in range(0, 150, room)]
    with fake_model("classify", plugin="chunking") as served:
        scores = served.run("score", ScoreRequest(queries="asked", documents=[words(150), *chunks])).scores
        documents = [chunks[int(scores[1:].argmin())], words(150)]
        ranked = served.run("rerank", RerankRequest(query="asked", documents=documents)).results
    assert scores[0] == max(scores[1:])
    assert [one.index for one in ranked] == [1, 0]


def test_a_pair_that_fits_gives_what_it_gives_without_the_plugin(install_grade):
    install_grade("LOGITS")
    request = PoolingRequest(input=["a|b c"])
    with fake_model("grade") as plain, fake_model("grade", plugin="chunking") as served:
        assert np.array_equal(served.run("pairs", request).data, plain.run("pairs", request).data)


def test_a_first_text_that_leaves_no_room_for_the_second_is_refused(install_grade):
    install_grade("LOGITS")
    with fake_model("grade", plugin="chunking") as served, pytest.raises(RequestError) as caught:
        served.run("pairs", PoolingRequest(input=f"{words(70)}|b c"))
    assert str(caught.value) == (
        "The first text of a pair has 72 tokens with the special tokens around it, which leaves 0 of 64 to each chunk "
        "of the second. Shorten it, or set truncate_prompt_tokens=-1 to have both cut."
    )


def test_what_a_head_gives_besides_cannot_be_put_together(parts_backbone):
    with (
        fake_model("embed", plugin="chunking", backbone=parts_backbone) as served,
        pytest.raises(BatchError) as caught,
    ):
        embed(served, "short", words(70))
    assert str(caught.value.errors[1]) == (
        "Prompt 1 is longer than 64 tokens, and of what task 'embed' gives for its chunks, length cannot be put "
        "together. Shorten it, or set truncate_prompt_tokens=-1 to have it cut."
    )
