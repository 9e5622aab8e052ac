"""The pipeline that offline calls and HTTP requests share."""

import asyncio
import threading
from collections import Counter

import numpy as np
import pytest

from poolkit import EmbeddingsRequest, ScoreRequest
from poolkit.errors import BatchError, ClosedError, EngineError, RequestError
from poolkit.testing import FakeBackbone, FakeTokenizer, fake_model
from serving import HeldBackbone

TEXTS = [f"text number {number}" for number in range(700)]


def embed(served, texts, **fields):
    return served.run("embeddings", EmbeddingsRequest(input=texts, **fields)).embeddings


def is_poisoned(prompt):
    return len(prompt.token_ids) == 7


@pytest.fixture
def tokenized(monkeypatch):
    """The number of times that each text was tokenized."""
    counts = Counter()
    encode_batch = FakeTokenizer.encode_batch

    def count(self, texts, **options):
        counts.update(texts)
        return encode_batch(self, texts, **options)

    monkeypatch.setattr(FakeTokenizer, "encode_batch", count)
    return counts


@pytest.mark.parametrize("task", ["embed", "classify", "token_embed"])
def test_a_query_is_tokenized_once_for_all_of_its_documents(tokenized, task):
    with fake_model(task) as served:
        response = served.run("score", ScoreRequest(queries="what was asked", documents=TEXTS))
    assert len(response.scores) == len(TEXTS)
    assert tokenized["what was asked"] == 1
    assert {tokenized[text] for text in TEXTS} == {1}


def test_each_text_of_a_request_is_tokenized_once_however_often_its_batch_is_run(tokenized):
    failing = fake_model(backbone=lambda task: FakeBackbone(task, fails_on=is_poisoned))
    with failing as served, pytest.raises(BatchError):
        embed(served, [*TEXTS, "these are five words exactly"])
    assert set(tokenized.values()) == {1}
    assert {*TEXTS, "these are five words exactly"} <= set(tokenized)


def test_online_and_offline_give_the_same_answer():
    with fake_model() as served:
        offline = embed(served, TEXTS)
        online = asyncio.run(served.arun("embeddings", lambda: EmbeddingsRequest(input=TEXTS), lambda answer: answer))
    np.testing.assert_array_equal(offline, online.embeddings)


def test_a_prompt_that_the_model_fails_on_fails_alone():
    with fake_model(backbone=lambda task: FakeBackbone(task, fails_on=is_poisoned)) as served:
        with pytest.raises(BatchError) as error:
            embed(served, ["one", "these are five words exactly", "three"])
        with pytest.raises(EngineError):
            embed(served, "these are five words exactly")
        [first, missing, third] = error.value.outputs
        assert missing is None
        assert isinstance(error.value.errors[1], EngineError)
        np.testing.assert_array_equal([first.data, third.data], embed(served, ["one", "three"]))


def test_online_a_request_with_a_bad_prompt_is_answered_with_that_prompts_error():
    with fake_model() as served:
        work = served.arun("embeddings", lambda: EmbeddingsRequest(input=["fine", [5000]]), lambda answer: answer)
        with pytest.raises(RequestError, match=r"^Prompt 1 holds token id 5000;"):
            asyncio.run(work)


def test_a_request_that_is_cancelled_frees_its_place_and_others_are_answered():
    held = []

    def hold(task):
        held.append(HeldBackbone(task))
        return held[0]

    with fake_model(backbone=hold) as served:
        [backbone] = held

        async def scenario():
            first = asyncio.ensure_future(served.arun("embeddings", lambda: EmbeddingsRequest(input="one"), list))
            await asyncio.to_thread(backbone.is_reached.wait)
            gone = asyncio.ensure_future(served.arun("embeddings", lambda: EmbeddingsRequest(input=TEXTS), list))
            while served.stats().prompts_waiting < len(TEXTS):
                await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait({gone})
            assert gone.cancelled()
            while served.stats().prompts_waiting > 1:  # the worker thread may have to see the cancellation first
                await asyncio.sleep(0)
            backbone.may_go.set()
            assert await first

        asyncio.run(scenario())
        assert backbone.prompts_run == 1


def test_blocking_work_never_runs_on_the_event_loop():
    threads = set()

    def decode():
        threads.add(threading.current_thread())
        return EmbeddingsRequest(input="one")

    def encode(answer):
        threads.add(threading.current_thread())
        return answer

    with fake_model() as served:
        asyncio.run(served.arun("embeddings", decode, encode))
    assert threading.current_thread() not in threads


def test_a_closed_model_refuses_further_requests():
    with fake_model() as served:
        pass
    with pytest.raises(ClosedError):
        embed(served, "one")
