"""A task that tells failures one by one: each item has its own answer or error."""

from __future__ import annotations

import numpy as np
import pytest

from poolkit import PoolingRequest, create_app
from poolkit.errors import BatchError
from poolkit.testing import FakeBackbone, FakeTokenizer, fake_model
from serving import ask

LENGTHS = '''
from pydantic import BaseModel, ConfigDict

from poolkit import ItemError, Operation, Output, PoolingIOProcessor, PoolingRequest, PoolingTask, Prepared
from poolkit.errors import RequestError


class Item(BaseModel):
    index: int
    tokens: int | None = None
    error: str | None = None
    is_yours: bool | None = None


class Items(BaseModel):
    items: list[Item]


class Lengths(PoolingIOProcessor):
    """Counts tokens; refuses texts that say so."""

    def pre_process(self, request):
        prompts = request.prompts()
        refused = {i: RequestError(f"Item {i} is rude.") for i, text in enumerate(prompts) if text == "rude"}
        return Prepared(prompts, refused=refused)

    def post_process(self, prepared, outputs):
        return Items(items=[
            Item(index=i, error=output.message, is_yours=output.is_client_fault)
            if isinstance(output, ItemError) else Item(index=i, tokens=len(output.prompt_token_ids))
            for i, output in enumerate(outputs)
        ])


def operation(name, per_item):
    return Operation(
        name=name, request=PoolingRequest, response=Items, io_processor="poolkit_lengths:Lengths", per_item=per_item
    )


LENGTHS = PoolingTask(
    name="lengths",
    api=1,
    summary="Counts tokens.",
    output=Output.VECTOR,
    operations=(operation("lengths", True), operation("strict", False)),
)
'''
WINDOWS = '''
from pydantic import BaseModel

from poolkit import ItemError, Operation, Output, PoolingIOProcessor, PoolingRequest, PoolingTask, Prepared


class Report(BaseModel):
    windows: list[int]
    errors: dict[int, str]


class Windows(PoolingIOProcessor):
    """Reads texts, then each of those that could be read word by word."""

    def pre_process(self, request):
        return Prepared(request.prompts(), state=request.prompts())

    def post_process(self, prepared, outputs):
        if prepared.state is not None:
            read = [i for i, output in enumerate(outputs) if not isinstance(output, ItemError)]
            words = [(i, word) for i in read for word in prepared.state[i].split()]
            return Prepared([word for _, word in words], origin=[i for i, _ in words])
        return Report(
            windows=[i for i, output in zip(prepared.origin, outputs) if not isinstance(output, ItemError)],
            errors={output.index: output.message for output in outputs if isinstance(output, ItemError)},
        )


WINDOWS = PoolingTask(
    name="windows",
    api=1,
    summary="Reads words.",
    output=Output.VECTOR,
    operations=(
        Operation(
            name="windows",
            request=PoolingRequest,
            response=Report,
            io_processor="poolkit_windows:Windows",
            per_item=True,
            max_rounds=2,
        ),
    ),
)
'''
TEXTS = ["a", "rude", "broken text here", [5000]]


@pytest.fixture
def served(install):
    install("poolkit-lengths", {"poolkit_lengths": LENGTHS}, tasks={"lengths": "poolkit_lengths:LENGTHS"})

    def backbone(task):
        return FakeBackbone(task, fails_on=lambda prompt: len(prompt.token_ids) == 5)

    with fake_model("lengths", plugin="poolkit-lengths", backbone=backbone) as served:
        yield served


def test_each_item_has_its_own_answer_or_error_offline_and_online(served):
    offline = served.run("lengths", PoolingRequest(input=TEXTS)).model_dump()
    online = ask(create_app(served), "POST", "/tasks/lengths/lengths", json={"input": TEXTS})
    assert online.status_code == 200
    assert online.json() == offline
    first, rude, broken, unknown = offline["items"]
    assert (first["tokens"], first["error"]) == (3, None)
    assert (rude["error"], rude["is_yours"]) == ("Item 1 is rude.", True)
    assert broken["error"].startswith("The forward pass failed on a prompt of 5 tokens")
    assert broken["is_yours"] is False
    assert unknown["error"].startswith("Prompt 3 holds token id 5000")


def test_an_operation_that_does_not_ask_for_them_never_sees_one(served):
    with pytest.raises(BatchError) as caught:
        served.run("strict", PoolingRequest(input=TEXTS))
    assert sorted(caught.value.errors) == [1, 2, 3]
    answer = ask(create_app(served), "POST", "/tasks/lengths/strict", json={"input": TEXTS[:2]})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "Item 1 is rude.")


def test_a_failure_in_a_later_round_is_that_of_the_item_which_origin_names(install):
    install("poolkit-windows", {"poolkit_windows": WINDOWS}, tasks={"windows": "poolkit_windows:WINDOWS"})

    def backbone(task):
        [bad] = FakeTokenizer().encode_batch(["bad"], add_special_tokens=True)
        return FakeBackbone(task, fails_on=lambda prompt: np.array_equal(prompt.token_ids, bad))

    texts = ["a b", "word " * 80, "some bad word", "c"]
    with fake_model("windows", plugin="poolkit-windows", backbone=backbone) as served:
        offline = served.run("windows", PoolingRequest(input=texts))
        online = ask(create_app(served), "POST", "/tasks/windows/windows", json={"input": texts})
    assert offline.windows == [0, 0, 2, 2, 3]
    assert offline.errors == {
        2: "The forward pass failed on a prompt of 3 tokens: RuntimeError. Other prompts are not affected; the log has "
        "the traceback."
    }
    assert (online.status_code, online.json()) == (200, offline.model_dump(mode="json"))
