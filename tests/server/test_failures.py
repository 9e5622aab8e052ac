"""The answer to a failed request: one envelope, and a sentence that helps."""

import logging
from collections.abc import Iterator

import pytest

from poolkit import create_app
from poolkit.testing import FakeBackbone
from serving import ask, fake_model

VOCABULARY = 1000


@pytest.fixture(scope="module")
def app() -> Iterator:
    with fake_model() as served:
        yield create_app(served, max_body_bytes=5000)


def told(response) -> tuple[int, str, str | None, str]:
    """Return status, message, param and code of the one envelope."""
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return response.status_code, error["message"], error["param"], error["code"]


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({}, "input is required.", "input"),
        (
            {"input": None},
            "input must be a string, an array of token ids, a pair {first, second}, an object of another modality such "
            "as {image}, or an array of these, got null.",
            "input",
        ),
        ({"input": []}, "input is empty. Send at least one text or list of token ids.", "input"),
        (
            {"input": ["a", None]},
            "input[1] must be a string, an array of token ids, a pair {first, second}, or an object of another "
            "modality such as {image}, got null.",
            "input[1]",
        ),
        (
            {"input": ["a", 1]},
            "input[1] must be a string, an array of token ids, a pair {first, second}, or an object of another "
            "modality such as {image}, got 1.",
            "input[1]",
        ),
        (
            {"input": ["a", {"img": "x"}]},
            "input[1] must be a string, an array of token ids, a pair {first, second} or {image}, got an object with "
            "'img'.",
            "input[1]",
        ),
        ({"input": [[1, 2], [3, "x"]]}, "input[1][1] must be an integer, got 'x'.", "input[1][1]"),
        ({"input": [1, -2]}, "input[1] must be greater than or equal to 0, got -2.", "input[1]"),
        ({"input": [[1, 2], [3, True]]}, "input[1][1] must be an integer, got true.", "input[1][1]"),
        ({"input": [1, 2.0]}, "input[1] must be an integer, got 2.0.", "input[1]"),
        (
            {"input": [1 << 31]},
            "input[0] must be less than or equal to 2147483647, got 2147483648.",
            "input[0]",
        ),
        (
            {"input": [1 << 63]},
            "input[0] must be less than or equal to 2147483647, got 9223372036854775808.",
            "input[0]",
        ),
        ({"input": {"first": "a"}}, "input.second is required.", "input.second"),
        ({"input": "a", "dimensions": "many"}, "dimensions must be an integer, got 'many'.", "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions must be greater than or equal to 1, got 0.", "dimensions"),
        ({"input": "a", "dimensions": 9}, "dimensions is 9; fake offers 1 to 8.", "dimensions"),
        (
            {"input": "a", "encoding_format": "hex"},
            "encoding_format must be 'float' or 'base64', got 'hex'.",
            "encoding_format",
        ),
        (
            {"input": "x " * 70},
            "Prompt 0 has 72 tokens; fake takes at most 64. "
            "Shorten it, or set truncate_prompt_tokens=-1 to have it cut to that length.",
            "input",
        ),
        (
            {"input": [[3], [VOCABULARY]]},
            "Prompt 1 holds token id 1000; the ids of fake go from 0 to 999. Send text, or ids made by this model's "
            "own tokenizer (langchain's OpenAIEmbeddings sends another model's ids unless "
            "check_embedding_ctx_length=False).",
            "input",
        ),
    ],
)
def test_wrong_input_is_told_in_a_sentence_that_names_the_field(app, fields, message, param):
    response = ask(app, "POST", "/v1/embeddings", json=fields)
    assert told(response) == (400, message, param, "invalid_request")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/embeddings", "model, user, encoding_format, "),
        ("/pooling", "model, user, encoding_format, "),
        ("/tasks/embed/embeddings", ""),
    ],
)
def test_a_misspelled_field_is_told_beside_the_required_one_that_is_missing(app, path, known):
    _, message, param, _ = told(ask(app, "POST", path, json={"inpt": "a"}))
    assert param == "input"
    assert message.startswith(
        f"input is required. inpt is not known. Did you mean 'input'? Known: {known}truncate_prompt_tokens, "
    )


def test_an_unknown_field_of_another_name_is_ignored_where_unknown_fields_are(app):
    response = ask(app, "POST", "/v1/embeddings", json={"store": True})
    assert told(response) == (400, "input is required.", "input", "invalid_request")


def test_a_field_that_is_unknown_is_refused_on_poolkits_own_routes(app):
    response = ask(app, "POST", "/tasks/embed/embeddings", json={"input": "a", "dimension": 3})
    assert told(response) == (
        400,
        "dimension is not known. Did you mean 'dimensions'? Known: truncate_prompt_tokens, truncation_side, "
        "use_activation, input, add_special_tokens, prompt_name, input_type, dimensions.",
        "dimension",
        "invalid_request",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "The body is not valid JSON: unexpected end of data: line 1 column 2 (char 1)."),
        (b"", "The body is not valid JSON: Input is a zero-length, empty document: line 1 column 1 (char 0)."),
        (b"[1]", "The body must be a JSON object."),
    ],
)
def test_a_body_that_is_no_json_object_is_told(app, content, message):
    response = ask(app, "POST", "/v1/embeddings", content=content)
    assert told(response) == (400, message, None, "invalid_request")


def test_another_model_is_not_found(app):
    response = ask(app, "POST", "/v1/embeddings", json={"input": "a", "model": "other"})
    message = "The model `other` does not exist. This server serves: `fake`."
    assert told(response) == (404, message, "model", "model_not_found")


def test_another_task_is_refused(app):
    response = ask(app, "POST", "/pooling", json={"input": "a", "task": "score"})
    message = (
        "Unsupported task: 'score'. This server serves 'embed'. "
        'Restart it with --task score, or PoolerConfig(task="score").'
    )
    assert told(response) == (400, message, "task", "invalid_request")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/xyz", ""),
        ("/v1/embeddings/", " Did you mean '/v1/embeddings'?"),
        ("/v1/embedings", " Did you mean '/v1/embeddings'?"),
    ],
)
def test_a_path_that_does_not_exist_is_told_in_the_same_envelope(app, path, hint):
    message = f"There is no route {path!r}.{hint} All routes are listed at /docs."
    assert told(ask(app, "POST", path)) == (404, message, None, "not_found")


def test_a_wrong_method_is_told_in_the_same_envelope(app):
    response = ask(app, "GET", "/v1/embeddings")
    message = "/v1/embeddings does not take GET. It takes POST."
    assert told(response) == (405, message, None, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_body_that_is_too_long_is_refused(app):
    response = ask(app, "POST", "/v1/embeddings", json={"input": "a" * 6000})
    message = "The request body is longer than 5000 bytes. Send fewer inputs in one request."
    assert told(response) == (413, message, None, "body_too_large")


def test_a_body_that_does_not_say_its_length_is_refused_once_it_is_too_long(app):
    async def chunks():
        for _ in range(6):
            yield b" " * 1000

    assert told(ask(app, "POST", "/v1/embeddings", content=chunks()))[0] == 413


def test_one_bad_prompt_is_told_by_its_index(app):
    response = ask(app, "POST", "/v1/embeddings", json={"input": ["fine", "x " * 70, "fine too"]})
    assert told(response)[:2] == (
        400,
        "Prompt 1 has 72 tokens; fake takes at most 64. "
        "Shorten it, or set truncate_prompt_tokens=-1 to have it cut to that length.",
    )


def test_a_failing_model_is_the_servers_fault_and_is_logged_once_with_the_request_id(caplog):
    with fake_model(backbone=lambda task: FakeBackbone(task, fails_on=lambda _: True)) as served:
        app = create_app(served)
        with caplog.at_level(logging.ERROR, logger="poolkit.server"):
            response = ask(app, "POST", "/v1/embeddings", json={"input": "a"}, headers={"x-request-id": "id-1"})
    message = "The server failed to answer. Its log says why; the request id is id-1."
    assert told(response) == (500, message, None, "internal_error")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("poolkit.server")] == [
        "Request id-1 failed."
    ]


def test_keys_guard_every_route_but_the_probes():
    with fake_model() as served:
        app = create_app(served, api_keys=["one", "two"])
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing", "/version", "/tasks"):
            response = ask(app, "GET", path)
            message = "This server needs an API key. Send it as  Authorization: Bearer <key>."
            assert told(response) == (401, message, None, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/livez", "/readyz", "/health"):
            assert ask(app, "GET", path).status_code == 200
        for key in ("one", "two"):
            assert ask(app, "GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        for header in ("Bearer three", "Bearer ", "Basic one", "one"):
            response = ask(app, "GET", "/v1/models", headers={"Authorization": header})
            message = "The API key is not one of this server's. Send a valid one as  Authorization: Bearer <key>."
            assert told(response) == (401, message, None, "invalid_api_key")


def test_a_dead_engine_makes_the_server_unready_and_strands_nobody():
    class Dying(FakeBackbone):
        def __call__(self, _):
            raise GeneratorExit  # no fault of a plugin's, which would fail its batch alone

    with fake_model(backbone=Dying) as served:
        app = create_app(served)
        assert ask(app, "GET", "/readyz").status_code == 200
        stranded = ask(app, "POST", "/v1/embeddings", json={"input": "one"})
        unready = ask(app, "GET", "/readyz")
    assert stranded.status_code == 500
    assert unready.status_code == 503
    assert (
        told(unready)[1] == "The engine of fake has died and nothing can be run. Restart the server; its log says why."
    )
