"""Whatever is sent: an answer for each input in its order, the same numbers in every encoding, and never a 500."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeness import assert_close, assert_ranks
from poolkit import ImagePrompt, PoolingRequest
from poolkit.operations.modalities import request_context
from poolkit.server import App, create_app
from properties import JSON, TEXTS, quick
from serving import ask, fake_model

TASKS = ("embed", "token_embed", "classify", "token_classify", "reward")
WORDS = st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1), max_size=20)
SENTENCES = WORDS.map(" ".join)
"""Texts of at most 20 tokens of the fake tokenizer."""
IMAGES = st.binary(max_size=60)
IMAGES_ARE_READ = request_context({"image": ImagePrompt})


@dataclass(frozen=True)
class Route:
    """A route that answers one thing for each input: what is sent, and where its answers are."""

    task: str
    path: str
    body: Callable[[list[str]], dict[str, object]]
    answers: Callable[[dict[str, object]], list[object]]


def inputs(texts: list[str]) -> dict[str, object]:
    return {"input": texts}


def data(*fields: str) -> Callable[[dict[str, object]], list[object]]:
    return lambda answer: [[item[field] for field in fields] for item in answer["data"]]


ROUTES = [
    Route("embed", "/v1/embeddings", inputs, data("embedding")),
    Route("embed", "/tasks/embed/embeddings", inputs, lambda answer: answer["embeddings"]),
    *(Route(task, "/pooling", inputs, data("data")) for task in TASKS),
    Route("classify", "/classify", inputs, data("label", "probs")),
    Route("token_classify", "/token_classify", inputs, data("entities")),
    *(
        Route(task, "/score", lambda texts: {"queries": "asked", "documents": texts}, data("score"))
        for task in ("embed", "token_embed", "classify")
    ),
]


@pytest.fixture(scope="module")
def apps() -> Iterator[dict[str, App]]:
    with ExitStack() as stack:
        models = {task: stack.enter_context(fake_model(task)) for task in TASKS}
        yield {task: create_app(served) for task, served in models.items()}


def post(app: App, path: str, body: object) -> dict[str, object]:
    response = ask(app, "POST", path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.task} {route.path}")
@given(texts=st.lists(SENTENCES, min_size=1, max_size=4))
@quick(20)
def test_each_input_gets_its_own_answer_in_its_order(apps, route, texts):
    together = route.answers(post(apps[route.task], route.path, route.body(texts)))

    alone = [route.answers(post(apps[route.task], route.path, route.body([text])))[0] for text in texts]
    if route.path == "/score":
        assert_close(together, alone)  # numpy sums in another order where there are more documents
    else:
        assert together == alone


@pytest.mark.parametrize("task", ["embed", "token_embed", "classify"])
@given(documents=st.lists(SENTENCES, min_size=1, max_size=5), top_n=st.none() | st.integers(0, 6))
@quick(20)
def test_a_reranked_list_holds_the_best_scores_with_the_documents_they_belong_to(apps, task, documents, top_n):
    scored = post(apps[task], "/score", {"queries": "asked", "documents": documents})
    scores = [item["score"] for item in scored["data"]]

    ranked = post(apps[task], "/rerank", {"query": "asked", "documents": documents, "top_n": top_n})["results"]

    assert len(ranked) == min(top_n or len(documents), len(documents))
    assert_ranks([(one["index"], one["relevance_score"]) for one in ranked], scores)
    assert [one["document"] for one in ranked] == [{"text": documents[one["index"]]} for one in ranked]


@pytest.mark.parametrize(
    ("task", "path", "field"),
    [("embed", "/v1/embeddings", "embedding"), *((task, "/pooling", "data") for task in TASKS)],
)
@given(texts=st.lists(SENTENCES, min_size=1, max_size=3), activates=st.none() | st.booleans())
@quick(20)
def test_base64_holds_the_numbers_that_json_holds(apps, task, path, field, texts, activates):
    body = {"input": texts, "use_activation": activates}

    plain, coded = (post(apps[task], path, {**body, "encoding_format": form})["data"] for form in ("float", "base64"))

    for one, other in zip(plain, coded, strict=True):
        numbers = np.asarray(one[field], np.float32)
        decoded = np.frombuffer(base64.b64decode(other[field]), "<f4").reshape(other.get("shape", numbers.shape))
        np.testing.assert_array_equal(decoded, numbers)


@given(data=IMAGES, form=st.sampled_from(("{}", "data:image/png;base64,{}", "data:;base64,{}")))
@quick(60)
def test_an_image_is_read_as_it_was_written(data, form):
    written = {"image": form.format(base64.b64encode(data).decode())}

    [read] = PoolingRequest.model_validate_json(json.dumps({"input": [written]}), context=IMAGES_ARE_READ).input

    assert read == ImagePrompt(data)
    assert read.data == data


@given(data=IMAGES)
@quick(60)
def test_a_request_with_an_image_survives_json(data):
    request = PoolingRequest(input=[ImagePrompt(data), "a text"])

    assert PoolingRequest.model_validate_json(request.model_dump_json(), context=IMAGES_ARE_READ) == request


@pytest.fixture(scope="module")
def shown(apps) -> dict[str, dict[str, dict[str, object]]]:
    """Return the examples of each task."""
    return {task: examples(app) for task, app in apps.items()}


def examples(app: App) -> dict[str, dict[str, object]]:
    """Return the body that the schema of each route with POST shows."""
    schema = ask(app, "GET", "/openapi.json").json()
    found = {}
    for path, methods in schema["paths"].items():
        if "post" in methods:
            content = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
            name = content.get("$ref", "").rpartition("/")[2]
            described = schema["components"]["schemas"][name] if name else content
            found[path] = described["examples"][0]
    return found


@pytest.mark.parametrize("task", TASKS)
@given(values=st.data())
@quick(80)
def test_a_body_with_anything_in_a_field_is_answered_or_refused_and_never_fails(apps, shown, task, values):
    path = values.draw(st.sampled_from(sorted(shown[task])))
    body = shown[task][path]
    known = sorted({*body, "model", "truncate_prompt_tokens", "dimensions", "encoding_format", "use_activation"})
    changed = {**body, **values.draw(st.dictionaries(st.sampled_from(known) | TEXTS, JSON, min_size=1, max_size=2))}

    response = ask(apps[task], "POST", path, json=values.draw(st.just(changed) | JSON))

    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert response.json()
        assert "Internal" not in response.text


@pytest.mark.parametrize("task", TASKS)
@given(content=st.binary(max_size=60))
@quick(20)
def test_bytes_that_are_no_json_object_are_refused(apps, task, content):
    response = ask(apps[task], "POST", "/pooling", content=content)

    assert response.status_code == 400
    assert response.json()["error"]["message"]
