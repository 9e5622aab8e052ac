"""A task whose prompts belong together: they run in one batch, and fail as one."""

from __future__ import annotations

import numpy as np
import pytest

from poolkit import PoolingRequest
from poolkit.errors import EngineError, HookError, RequestError
from poolkit.testing import FakeBackbone, fake_model

TOGETHER = '''
from dataclasses import replace

from poolkit import Operation, Output, PoolingProcessor, PoolingRequest, PoolingResponse, PoolingTask


class Together(PoolingProcessor):
    """Pools the texts that begin with the same letter together."""

    def pre_process(self, request):
        prepared = super().pre_process(request)
        return replace(prepared, groups=[prompt[:1] or None for prompt in prepared.prompts])


TOGETHER = PoolingTask(
    name="together",
    api=1,
    summary="Pools groups.",
    output=Output.VECTOR,
    operations=(
        Operation(
            name="pooling",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="poolkit_together:Together",
            per_prompt=("data",),
        ),
    ),
)
'''
WRAPPER = """
from poolkit import hookimpl

class Wrapper:
    def run(self, encoded):
        {body}

@hookimpl
def poolkit_wrap(context, settings):
    return [Wrapper()]
"""
TEXTS = ["a one", "b one two", "a two three four five", "b three", "", "a six"]


@pytest.fixture
def batches(install):
    """Return the batches that ran."""
    install("poolkit-together", {"poolkit_together": TOGETHER}, tasks={"together": "poolkit_together:TOGETHER"})
    return []


@pytest.fixture
def batches_inside(install):
    """Return a function that puts a wrapper with such a `run` around the model, and returns the batches that ran."""

    def wrap(body: str):
        install(
            "poolkit-together",
            {"poolkit_together": TOGETHER, "poolkit_wrapper": WRAPPER.format(body=body)},
            tasks={"together": "poolkit_together:TOGETHER"},
            hooks={"wrapper": "poolkit_wrapper"},
        )
        return []

    return wrap


def watched(batches, *, fails_on=None):
    class Watched(FakeBackbone):
        def __call__(self, batch):
            batches.append(batch)
            return super().__call__(batch)

    return lambda task: Watched(task, fails_on=fails_on) if fails_on else Watched(task)


def test_the_prompts_of_a_group_run_in_one_batch(batches):
    with fake_model("together", plugin="poolkit-together", backbone=watched(batches), max_num_seqs=3) as served:
        together = served.run("pooling", PoolingRequest(input=TEXTS)).data
    with fake_model("embed") as plain:
        alone = plain.run("pooling", PoolingRequest(input=TEXTS, use_activation=False)).data
    sizes = sorted(
        int((batch.groups == group).sum())
        for batch in batches
        if batch.groups is not None
        for group in set(batch.groups.tolist()) - {-1}
    )
    assert sizes == [2, 3]
    for found, expected in zip(together, alone, strict=True):
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_group_that_is_larger_than_a_batch_is_refused_before_anything_runs(batches):
    with (
        fake_model("together", plugin="poolkit-together", backbone=watched(batches), max_num_seqs=2) as served,
        pytest.raises(RequestError) as caught,
    ):
        served.run("pooling", PoolingRequest(input=TEXTS))
    assert str(caught.value) == (
        "3 prompts belong together (group 'a'), and at most 2 run in one batch (max_num_seqs). Send fewer in one "
        "request."
    )
    assert batches == []


def test_where_one_of_a_group_cannot_run_none_of_it_does(batches):
    too_long = "a " + " ".join(["word"] * 80)
    with (
        fake_model("together", plugin="poolkit-together", backbone=watched(batches), max_num_seqs=4) as served,
        pytest.raises(RequestError) as caught,
    ):
        served.run("pooling", PoolingRequest(input=[*TEXTS, too_long]))
    assert sorted(caught.value.errors) == [0, 2, 5, 6]
    assert {str(error) for error in caught.value.errors.values()} == {str(caught.value.errors[6])}


def test_a_group_on_which_the_model_fails_fails_as_one(batches):
    backbone = watched(batches, fails_on=lambda prompt: len(prompt.token_ids) == 7)
    with (
        fake_model("together", plugin="poolkit-together", backbone=backbone, max_num_seqs=8) as served,
        pytest.raises(RequestError) as caught,
    ):
        served.run("pooling", PoolingRequest(input=TEXTS))
    assert {index: type(error) for index, error in caught.value.errors.items()} == dict.fromkeys((0, 2, 5), EngineError)


@pytest.mark.parametrize(
    ("body", "yielded"),
    [("return 6 * (yield encoded[:1])", 1), ("return (yield encoded * 2)[:6]", 6)],
    ids=["a part of it", "twice"],
)
def test_a_wrapper_that_does_not_pass_a_group_as_a_whole_is_blamed(batches_inside, body, yielded):
    batches = batches_inside(body)
    with (
        fake_model("together", plugin="poolkit-together", backbone=watched(batches), max_num_seqs=3) as served,
        pytest.raises(HookError) as caught,
    ):
        served.run("pooling", PoolingRequest(input=TEXTS))
    assert str(caught.value) == (
        "poolkit-together 1.0.0, wrapped around task 'together' of poolkit-together 1.0.0, failed in run."
    )
    assert str(caught.value.__cause__) == (
        f"yielded {yielded} prompts of a group of 3. A group runs as a whole, or not at all"
    )
    assert batches == []


def test_a_wrapper_may_answer_for_a_group_as_a_whole(batches_inside):
    body = """groups = [prompt.group for prompt in encoded]
        outcomes = iter((yield [prompt for prompt in encoded if prompt.group is groups[0]]))
        answers = [next(outcomes) if group is groups[0] else None for group in groups]
        return [answers[0] if answer is None else answer for answer in answers]
"""
    batches = batches_inside(body)
    with fake_model("together", plugin="poolkit-together", backbone=watched(batches), max_num_seqs=3) as served:
        data = served.run("pooling", PoolingRequest(input=TEXTS)).data
    assert [len(batch) for batch in batches] == [3]
    assert all(np.array_equal(data[place], data[0]) for place in (1, 3, 4))


def test_where_one_of_a_group_cannot_run_inside_a_wrapper_none_of_it_does(batches_inside):
    batches = batches_inside("return (yield encoded)\n    takes_long_prompts = True")
    too_long = "a " + " ".join(["word"] * 80)
    with (
        fake_model("together", plugin="poolkit-together", backbone=watched(batches), max_num_seqs=4) as served,
        pytest.raises(RequestError) as caught,
    ):
        served.run("pooling", PoolingRequest(input=[*TEXTS, too_long]))
    assert {index: str(error) for index, error in caught.value.errors.items()} == dict.fromkeys(
        (0, 2, 5, 6),
        "Prompt 6 has 83 tokens; fake takes at most 64. Shorten it, or set truncate_prompt_tokens=-1 to have it cut to "
        "that length.",
    )
    assert [len(batch) for batch in batches] == [3]
