"""Answers of the routes to good requests."""

import asyncio
import base64
import sys
from collections import Counter
from collections.abc import Iterator
from types import FrameType

import numpy as np
import pytest

from poolkit import create_app
from serving import Caller, ask, fake_model

CALLS_PER_REQUEST = 245
"""Calls of Python functions of poolkit on the event loop for a request of one text. Counted: 232."""

TEXTS = ["A cat sat on the mat.", "Stock prices fell."]


@pytest.fixture(scope="module")
def app() -> Iterator:
    with fake_model() as served:
        yield create_app(served)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_embeddings_are_answered_in_openais_shape(app, path):
    response = ask(app, "POST", path, json={"model": "fake", "input": TEXTS, "user": "me", "unknown": 1})
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("id") == f"embd-{response.headers['x-request-id']}"
    assert isinstance(answer.pop("created"), int)
    data = answer.pop("data")
    assert answer == {"object": "list", "model": "fake", "usage": {"prompt_tokens": 13, "total_tokens": 13}}
    assert [(item["index"], item["object"]) for item in data] == [(0, "embedding"), (1, "embedding")]
    assert all(len(item["embedding"]) == 8 for item in data)


def test_base64_is_the_same_vector_as_little_endian_float32(app):
    floats, coded = (
        ask(app, "POST", "/v1/embeddings", json={"input": TEXTS, "encoding_format": encoding}).json()["data"]
        for encoding in ("float", "base64")
    )
    for item, coded_item in zip(floats, coded, strict=True):
        decoded = np.frombuffer(base64.b64decode(coded_item["embedding"]), "<f4")
        np.testing.assert_array_equal(decoded, np.asarray(item["embedding"], np.float32))


def test_one_text_one_list_of_ids_and_several_are_all_inputs(app):
    def embed(prompts):
        return [item["embedding"] for item in ask(app, "POST", "/embeddings", json={"input": prompts}).json()["data"]]

    [text] = embed("hello")
    assert embed(["hello", "hello"]) == [text, text]
    [ids] = embed([5, 6, 7])
    assert embed([[5, 6, 7], [8]])[0] == ids


def test_vector_length_and_normalisation_are_the_clients_choice(app):
    def embed(**fields):
        answer = ask(app, "POST", "/embeddings", json={"input": "hello", **fields}).json()
        return np.asarray(answer["data"][0]["embedding"])

    assert np.linalg.norm(embed()) == pytest.approx(1)
    assert embed(dimensions=3).shape == (3,)
    assert np.linalg.norm(embed(use_activation=False)) != pytest.approx(1)


def test_truncation_counts_what_is_left(app):
    fields = {"input": "a b c d e f", "truncate_prompt_tokens": 4, "add_special_tokens": False}
    usage = ask(app, "POST", "/embeddings", json=fields).json()["usage"]
    assert usage == {"prompt_tokens": 4, "total_tokens": 4}


def test_pooling_is_answered_in_vllms_shape(app):
    response = ask(app, "POST", "/pooling", json={"model": "fake", "input": TEXTS, "task": "embed"})
    assert response.status_code == 200
    answer = response.json()
    assert answer["usage"] == {"prompt_tokens": 13, "total_tokens": 13}
    assert [(item["index"], item["object"], len(item["data"])) for item in answer["data"]] == [
        (0, "pooling", 8),
        (1, "pooling", 8),
    ]


def test_pooling_in_base64_says_its_shape(app):
    fields = {"input": TEXTS[:1], "encoding_format": "base64"}
    [item] = ask(app, "POST", "/pooling", json=fields).json()["data"]
    assert (item["shape"], item["dtype"]) == ([8], "float32")
    assert np.frombuffer(base64.b64decode(item["data"]), "<f4").shape == (8,)


def test_every_operation_has_a_route_of_its_own(app):
    answer = ask(app, "POST", "/tasks/embed/embeddings", json={"input": TEXTS}).json()
    assert sorted(answer) == ["embeddings", "usage"]
    assert np.asarray(answer["embeddings"]).shape == (2, 8)
    openai = ask(app, "POST", "/embeddings", json={"input": TEXTS}).json()
    assert answer["embeddings"] == [item["embedding"] for item in openai["data"]]


def test_json_is_read_whatever_the_content_type_says(app):
    content = b'{"input": "hello"}'
    for headers in ({}, {"content-type": "text/plain"}):
        assert ask(app, "POST", "/embeddings", content=content, headers=headers).status_code == 200


def test_models_lists_the_served_one(app):
    answer = ask(app, "GET", "/v1/models").json()
    assert isinstance(answer["data"][0].pop("created"), int)
    assert answer == {
        "object": "list",
        "data": [
            {
                "id": "fake",
                "object": "model",
                "owned_by": "poolkit",
                "root": "fake",
                "max_model_len": 64,
                "task": "embed",
            }
        ],
    }


def test_a_model_is_served_under_the_name_it_is_given():
    with fake_model() as served:
        app = create_app({"mine": served})
        assert ask(app, "GET", "/v1/models").json()["data"][0]["id"] == "mine"
        assert ask(app, "POST", "/embeddings", json={"input": "a", "model": "mine"}).json()["model"] == "mine"
        assert ask(app, "POST", "/embeddings", json={"input": "a", "model": "fake"}).status_code == 404


@pytest.mark.parametrize(("path", "status"), [("/livez", "alive"), ("/readyz", "ready"), ("/health", "ready")])
def test_probes_answer(app, path, status):
    response = ask(app, "GET", path)
    assert (response.status_code, response.json()) == (200, {"status": status})


def test_a_sane_request_id_is_kept_and_another_is_replaced(app):
    assert ask(app, "GET", "/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    replaced = ask(app, "GET", "/livez", headers={"x-request-id": "a b<script>"}).headers["x-request-id"]
    assert len(replaced) == 32


def test_metrics_count_requests_prompts_and_tokens():
    with fake_model() as served:
        app = create_app(served)
        ask(app, "POST", "/v1/embeddings", json={"input": TEXTS})
        ask(app, "POST", "/v1/embeddings", json={})
        ask(app, "GET", "/nothing/here")
        lines = ask(app, "GET", "/metrics").text.splitlines()
    assert 'poolkit_requests_total{route="/v1/embeddings",status="200"} 1.0' in lines
    assert 'poolkit_requests_total{route="/v1/embeddings",status="400"} 1.0' in lines
    assert 'poolkit_requests_total{route="<none>",status="404"} 1.0' in lines
    assert 'poolkit_request_seconds_count{route="/v1/embeddings",status="200"} 1.0' in lines
    assert 'poolkit_prompts_total{model="fake",outcome="done"} 2.0' in lines
    assert 'poolkit_tokens_total{model="fake"} 13.0' in lines
    assert 'poolkit_prompts_waiting{model="fake"} 0.0' in lines
    assert 'poolkit_model_info{model="fake",task="embed"} 1.0' in lines


def test_the_documentation_shows_real_request_schemas_with_examples(app):
    assert ask(app, "GET", "/docs").status_code == 200
    document = ask(app, "GET", "/openapi.json").json()
    for path in ("/v1/embeddings", "/embeddings", "/pooling", "/tasks/embed/embeddings", "/tasks/embed/pooling"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = document["components"]["schemas"][body["schema"]["$ref"].removeprefix("#/components/schemas/")]
        assert "input" in schema["properties"]
        assert schema["examples"]
        assert ask(app, "POST", path, json=schema["examples"][0]).status_code == 200


def test_a_request_passes_through_no_web_framework_and_few_functions():
    modules: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            modules[frame.f_globals.get("__name__", "").partition(".")[0]] += 1

    async def main() -> None:
        await caller.call()  # the first one imports and caches
        caller.is_read = False
        sys.setprofile(profile)
        try:
            await caller.call()
        finally:
            sys.setprofile(None)

    with fake_model() as served:
        caller = Caller(create_app(served), {"input": "a text"})
        asyncio.run(main())
    assert [message["type"] for message in caller.sent] == ["http.response.start", "http.response.body"] * 2
    assert caller.sent[2]["status"] == 200
    assert modules["fastapi"] == modules["starlette"] == 0
    assert modules["poolkit"] <= CALLS_PER_REQUEST
