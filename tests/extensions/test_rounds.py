"""A task whose requests run twice: what comes back first decides what is asked then."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from poolkit import EmbeddingsRequest, PoolingRequest, create_app
from poolkit.errors import EngineError, HookError, RequestError
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
from poolkit import hookimpl

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


@pytest.fixture
def refine(install):
    def install_refine(*, rounds: int = 1) -> None:
        install(
            "poolkit-refine",
            {"poolkit_refine": REFINE.replace("{rounds}", str(rounds)), "poolkit_watch": WATCH},
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
    with fake_model("refine", plugin="poolkit-refine", max_waiting_prompts=1) as served:
        assert len(served.run("pooling", PoolingRequest(input=TEXTS)).data)


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
