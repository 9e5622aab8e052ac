"""The routes of the task, asked as real clients ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.utils._http import default_async_client_factory
from poolkit_zero_shot import ZeroShotResponse
from zero_shot_asking import post

from poolkit import LLM, create_app
from poolkit.server import App

LABELS = ["sports", "economy", "cooking"]
TEXTS = ["The striker scored twice.", "Rates are to rise again."]


@pytest.mark.parametrize("path", ["/tasks/zero_shot/zero_shot", "/zero_shot/classify", "/pooling"])
def test_each_text_gets_its_labels_the_best_first(ask, path):
    response = ask(path, {"input": TEXTS, "candidate_labels": LABELS})

    assert response.status_code == 200
    answer = response.json()
    assert [one["index"] for one in answer["data"]] == [0, 1]
    for one in answer["data"]:
        assert sorted(one["labels"]) == sorted(LABELS)
        assert one["scores"] == sorted(one["scores"], reverse=True)
        assert sum(one["scores"]) == pytest.approx(1)
    tokens = answer["usage"]["prompt_tokens"]
    assert answer == {"data": answer["data"], "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    assert tokens > 0


def test_all_routes_give_the_same_scores(ask):
    body = {"inputs": TEXTS, "parameters": {"candidate_labels": LABELS, "multi_label": True}}
    own = ask("/zero_shot/classify", {"input": TEXTS, "candidate_labels": LABELS, "multi_label": True}).json()["data"]

    assert ask("/zero_shot/hub", body).json() == [
        [{"label": label, "score": score} for label, score in zip(one["labels"], one["scores"], strict=True)]
        for one in own
    ]
    assert ask("/zero_shot/pipeline", body).json() == [
        {"sequence": text, "labels": one["labels"], "scores": one["scores"]}
        for text, one in zip(TEXTS, own, strict=True)
    ]


def test_one_text_gets_one_answer_and_a_list_gets_a_list(ask):
    def answer(path: str, inputs: Any) -> Any:
        return ask(path, {"inputs": inputs, "parameters": {"candidate_labels": LABELS}}).json()

    assert [answer("/zero_shot/hub", TEXTS[0])] == answer("/zero_shot/hub", TEXTS[:1])
    assert [answer("/zero_shot/pipeline", TEXTS[0])] == answer("/zero_shot/pipeline", TEXTS[:1])
    assert answer("/zero_shot/hub", []) == answer("/zero_shot/pipeline", []) == []


def test_what_else_the_hubs_clients_send_is_let_pass(ask):
    body = {"inputs": TEXTS[0], "parameters": {"candidate_labels": LABELS}}
    more = {**body, "options": {"wait_for_model": True}}

    assert ask("/zero_shot/hub", more).json() == ask("/zero_shot/hub", body).json()


def test_a_long_text_is_refused_by_poolkits_own_route_and_cut_by_the_hubs(ask):
    long = "word " * 100
    refused = ask("/zero_shot/classify", {"input": long, "candidate_labels": LABELS})
    cut = ask("/zero_shot/hub", {"inputs": long, "parameters": {"candidate_labels": LABELS}})

    assert (refused.status_code, cut.status_code) == (400, 200)
    assert refused.json()["error"]["message"] == (
        "Prompt 0 has 107 tokens; fake takes at most 64. Shorten it, or set truncate_prompt_tokens=-1 to have it cut "
        "to that length."
    )


def test_a_real_model_gives_over_http_what_it_gives_offline(nli_checkpoint):
    folder = str(nli_checkpoint("bert"))
    body = {"input": TEXTS, "candidate_labels": LABELS}
    with LLM(folder, task="zero_shot", enable=["poolkit-zero-shot"], dtype="float32") as llm:
        offline = llm.run("zero_shot", body, use_tqdm=False)
        response = post(create_app(llm), "/zero_shot/classify", body)

    assert response.status_code == 200
    online = ZeroShotResponse.model_validate(response.json())
    assert [one.labels for one in online.data] == [one.labels for one in offline.data]
    # The labels may meet in other batches, whose float32 sums are added up in another order.
    assert [one.scores for one in online.data] == [pytest.approx(one.scores, abs=1e-5) for one in offline.data]
    assert online.usage == offline.usage


@pytest.fixture
def hub_client(app: App) -> Iterator[huggingface_hub.AsyncInferenceClient]:
    """Yield the hub's own client, whose requests go to the server in this process."""
    huggingface_hub.set_async_client_factory(lambda: httpx2.AsyncClient(transport=httpx2.ASGITransport(app)))
    yield huggingface_hub.AsyncInferenceClient("http://test/zero_shot/hub", token="none of ours")
    huggingface_hub.set_async_client_factory(default_async_client_factory)


def test_the_hubs_own_client_is_understood_and_understands(ask, hub_client):
    async def classify() -> list[Any]:
        async with hub_client:
            return await hub_client.zero_shot_classification(
                TEXTS[0], LABELS, multi_label=True, hypothesis_template="This is about {}."
            )

    elements = asyncio.run(classify())

    own = {"input": TEXTS[0], "candidate_labels": LABELS, "multi_label": True}
    [expected] = ask("/zero_shot/classify", {**own, "hypothesis_template": "This is about {}."}).json()["data"]
    assert [element.label for element in elements] == expected["labels"]
    assert [element.score for element in elements] == expected["scores"]
