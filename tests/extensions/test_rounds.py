"""A task whose requests run twice: what comes back first decides what is asked then."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from poolkit import EmbeddingsRequest, PoolingRequest, create_app
from poolkit.errors import EngineError, HookError, OverloadedError, RequestError
from poolkit.testing import FakeBackbone, fake_model
from serving import ask

REFINE = '''
from dataclasses import replace

from poolkit import (
    POOLING, Activation, Operation, Output, PoolingIOProcessor, PoolingRequest, PoolingResponse, PoolingTask, Prepared,
    Usage,
)


class Refine(PoolingIOProcessor):
    """Embeds texts, then the words of the text with the largest first number."""

    def pre_process(self, request):
        return Prepared(request.prompts(), state=(0, request.prompts()))

    def post_process(self, prepared, outputs):
        rounds, prompts = prepared.state
        if rounds < {rounds}:
            best = max(range(len(outputs)), key=lambda index: outputs[index].data[0])
            words = prompts[best].split()
            return Prepared(words, state=(rounds + 1, words), outputs_map_to_inputs=False, origin=[best] * len(words))
        return PoolingResponse(
            data=[output.data for output in outputs],
            prompt_token_ids=[output.prompt_token_ids for output in outputs],
            usage=Usage.of(outputs),
        )


REFINE = PoolingTask(
    name="refine",
    api=1,
    summary="Embeds the words of the best text.",
    output=Output.VECTOR,
    activation=Activation.NORMALIZE,
    operations=(
        Operation(
            name="pooling",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="poolkit_refine:Refine",
            max_rounds=2,
        ),
    ),
)
'''
WATCH = """
from poolkit import current_request, hookimpl

CALLS = []


class Watch:
    @hookimpl(wrapper=True)
    def pre_process(self, request):
        CALLS.append("pre_process")
        return (yield)

    def run(self, encoded):
        CALLS.append(f"run {len(encoded)}")
        return (yield encoded)

    @hookimpl(wrapper=True)
    def post_process(self, prepared, outputs):
        CALLS.append(f"post_process {len(outputs)}")
        return (yield)


@hookimpl
def poolkit_wrap(context, settings):
    return [Watch()]
"""
TEXTS = ["a b c", "d e", "f"]
PATIENCE_S = 30


@pytest.fixture
def refine(install):
    def install_refine(*, rounds: int = 1, changes: Mapping[str, str] | None = None, watch: str = WATCH) -> None:
        source = REFINE.replace("{rounds}", str(rounds))
        for text, change in (changes or {}).items():
            assert text in source
            source = source.replace(text, change)
        install(
            "poolkit-refine",
            {"poolkit_refine": source, "poolkit_watch": watch},
            tasks={"refine": "poolkit_refine:REFINE"},
            hooks={"watch": "poolkit_watch"},
        )

    return install_refine


def embed_fake(*texts: str):
    with fake_model("embed") as served:
        return served.run("embeddings", EmbeddingsRequest(input=list(texts))).embeddings


def test_the_second_round_runs_what_the_first_one_chose(refine):
    refine()
    best = int(embed_fake(*TEXTS)[:, 0].argmax())
    with fake_model("refine", plugin="poolkit-refine") as served:
        offline = served.run("pooling", PoolingRequest(input=TEXTS))
        online = ask(create_app(served), "POST", "/pooling", json={"input": TEXTS}).json()
    expected = embed_fake(*TEXTS[best].split())
    np.testing.assert_allclose(offline.data, expected, atol=1e-6)
    np.testing.assert_allclose([item["data"] for item in online["data"]], expected, atol=1e-6)


def test_the_tokens_of_all_rounds_are_counted(refine):
    refine()
    with fake_model("refine", plugin="poolkit-refine") as served:
        response = served.run("pooling", PoolingRequest(input=TEXTS))
    first = sum(len(text.split()) + 2 for text in TEXTS)
    assert response.usage.total_tokens == first + 3 * len(response.data)


def test_wrappers_surround_the_first_pre_process_every_run_and_the_last_post_process(refine):
    refine()
    with fake_model("refine", plugin="poolkit-refine") as served:
        words = len(served.run("pooling", PoolingRequest(input=TEXTS)).data)
        import poolkit_watch
    assert ["pre_process", "run 3", f"run {words}", f"post_process {words}"] == poolkit_watch.CALLS


def test_progress_grows_with_the_rounds(refine):
    refine()
    told = []
    with fake_model("refine", plugin="poolkit-refine") as served:
        response = served.run(
            "pooling", PoolingRequest(input=TEXTS), on_progress=lambda done, size: told.append((done, size))
        )
    assert told[-1] == (3 + len(response.data),) * 2


def test_more_rounds_than_were_declared_are_the_plugins_failure(refine):
    refine(rounds=5)
    with fake_model("refine", plugin="poolkit-refine") as served, pytest.raises(HookError) as caught:
        served.run("pooling", PoolingRequest(input=TEXTS))
    assert str(caught.value) == "task 'refine' of poolkit-refine 1.0.0 failed in post_process."
    assert str(caught.value.__cause__) == "returned prompts for more rounds than max_rounds=2"


def test_a_later_round_is_never_refused_for_overload(refine):
    refine()
    may_run = threading.Semaphore(0)

    class Held(FakeBackbone):
        def __call__(self, batch):
            may_run.acquire(timeout=PATIENCE_S)
            return super().__call__(batch)

    with (
        fake_model("refine", plugin="poolkit-refine", backbone=Held, max_waiting_prompts=2) as served,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting: list[int] = []

        def tell(done: int, size: int) -> None:  # noqa: ARG001
            if size > 1:  # the second round was let in
                waiting.append(served.stats().prompts_waiting)
                may_run.release(100)

        first = pool.submit(served.run, "pooling", PoolingRequest(input="a b c"), on_progress=tell)
        wait_for(lambda: served.stats().prompts_waiting == 1)
        others = pool.submit(served.run, "pooling", PoolingRequest(input=["d"] * 5))
        wait_for(lambda: served.stats().prompts_waiting == 6)
        with pytest.raises(OverloadedError):
            served.run("pooling", PoolingRequest(input="e"))
        may_run.release()
        assert len(first.result(PATIENCE_S).data) == 3
        assert len(others.result(PATIENCE_S).data) == 1
    assert waiting[0] == 5 + 3


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"


def test_every_round_serves_the_same_request(refine):
    refine(watch=WATCH.replace("CALLS.append(", "CALLS.append(current_request().request_id or "))
    with fake_model("refine", plugin="poolkit-refine") as served:
        served.run("pooling", PoolingRequest(input=TEXTS))
        import poolkit_watch

        assert len(poolkit_watch.CALLS) == 4
        assert len(set(poolkit_watch.CALLS)) == 1
        poolkit_watch.CALLS.clear()
        headers = {"x-request-id": "r1"}
        assert ask(create_app(served), "POST", "/pooling", json={"input": TEXTS}, headers=headers).status_code == 200
    assert poolkit_watch.CALLS == ["r1"] * 4


def test_prompts_of_a_later_round_that_cannot_be_run_are_refused_like_those_of_the_first(refine):
    refine(changes={"origin=[best] * len(words)": "groups=[0] * len(words)"})
    message = (
        "3 prompts belong together (group 0), and at most 1 run in one batch (max_num_seqs). Send fewer in one request."
    )
    with fake_model("refine", plugin="poolkit-refine") as served:
        with pytest.raises(RequestError) as caught:
            served.run("pooling", PoolingRequest(input="a b c"))
        answer = ask(create_app(served), "POST", "/pooling", json={"input": "a b c"})
    assert str(caught.value) == message
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_what_a_later_round_asks_for_wrongly_is_the_plugins_failure(refine):
    refine(changes={"origin=[best] * len(words)": "origin=[best]"})
    with fake_model("refine", plugin="poolkit-refine") as served, pytest.raises(HookError) as caught:
        served.run("pooling", PoolingRequest(input="a b c"))
    assert str(caught.value) == "task 'refine' of poolkit-refine 1.0.0 failed in post_process."
    assert str(caught.value.__cause__) == "Prepared has 3 prompts and 1 origin"


def test_a_failure_in_the_second_round_fails_the_request(refine):
    refine()

    def backbone(task):
        return FakeBackbone(task, fails_on=lambda prompt: len(prompt.token_ids) == 3 and prompt.index == 0)

    with fake_model("refine", plugin="poolkit-refine", backbone=backbone) as served:
        with pytest.raises(EngineError):
            served.run("pooling", PoolingRequest(input=TEXTS[:2]))
        with pytest.raises(EngineError):
            asyncio.run(served.arun("pooling", lambda: PoolingRequest(input=TEXTS[:2]), lambda response: response))
        with pytest.raises(RequestError):
            served.run("pooling", PoolingRequest(input=[[5000], "a b"]))


def test_the_response_has_one_item_for_each_prompt_of_the_last_round(refine):
    refine(changes={"max_rounds=2,": 'max_rounds=2, per_prompt=("data",),'})
    with fake_model("refine", plugin="poolkit-refine") as served:
        assert len(served.run("pooling", PoolingRequest(input="a b c")).data) == 3


def test_a_response_with_too_few_items_for_the_last_round_is_the_plugins_failure(refine):
    refine(changes={"max_rounds=2,": 'max_rounds=2, per_prompt=("data",),', "in outputs],": "in outputs][:1],"})
    with fake_model("refine", plugin="poolkit-refine") as served, pytest.raises(HookError) as caught:
        served.run("pooling", PoolingRequest(input="a b c"))
    assert str(caught.value.__cause__) == "returned 1 data for 3 prompts"
