"""Dialects that third parties bring: their own paths, words and failures, and their place on paths of core's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from distributions import CORE_DIALECTS, Site, open_site
from poolkit import PluginConfig, create_app
from poolkit.config import Reference
from poolkit.errors import ConfigError, PluginInvalidError
from poolkit.server import App
from poolkit.server import serve as serve_until_stopped
from poolkit.settings.settings import Settings
from serving import ask, fake_model

ACME = """
from pydantic import BaseModel, ConfigDict
from poolkit import Dialect, EmbeddingsRequest, EmbeddingsResponse, Reply, RerankRequest, RerankResponse
from poolkit.errors import RequestError

class AcmeVectors(BaseModel):
    "Embed texts for a tenant."
    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"texts": ["a"]}]})
    texts: list[str]
    size: int | None = None

class AcmeRerank(BaseModel):
    "Sort passages."
    model_config = ConfigDict(extra="ignore", frozen=True, json_schema_extra={"examples": [{"ask": "a", "among": []}]})
    ask: str
    among: list[str]

def decode_vectors(request, call, served):
    if call.headers.get("x-acme-plan") == "free":
        raise RequestError("The free plan has no vectors.")
    if request.texts == ["bug"]:
        raise KeyError("/secret/path")
    return EmbeddingsRequest(input=request.texts, dimensions=request.size)

def encode_vectors(response, request, call):
    content = {
        "tenant": call.path_parameters["tenant"], "model": call.model, "vectors": response.embeddings,
        "verbose": call.query.get("verbose"),
    }
    return Reply.json(content, status=201, headers={"x-acme-tokens": str(response.usage.total_tokens)})

def encode_error(failure):
    status = 422 if failure.status == 400 else failure.status
    return Reply.json({"problem": failure.message, "id": failure.request_id}, status=status, headers=failure.headers)

VECTORS = Dialect(
    paths=("/acme/{tenant}/vectors",), operation="embeddings", request=AcmeVectors, response=EmbeddingsResponse,
    decode=decode_vectors, encode=encode_vectors, encode_error=encode_error,
)
RERANK = Dialect(
    paths=("/rerank",), operation="rerank", request=AcmeRerank, response=RerankResponse,
    matches=lambda call, served: "among" in call.body,
    decode=lambda request, call, served: RerankRequest(query=request.ask, documents=request.among),
    encode=lambda response, request, call: Reply.json([one.index for one in response.results]),
    encode_error=encode_error,
)
DIALECTS = (VECTORS, RERANK)
"""

HEAD = """
from poolkit import Call, Dialect, EmbeddingsRequest, EmbeddingsResponse, NoBody, Reply
from pydantic import BaseModel

def make(path="/other/embed", *, word="other", **fields):
    return Dialect(**{
        "paths": (path,), "operation": "embeddings", "request": EmbeddingsRequest, "response": EmbeddingsResponse,
        "encode": lambda response, request, call: Reply.json(word), **fields,
    })
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder like site-packages beside the real one, with poolkit's own tasks and dialects."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    return Site(path)


@pytest.fixture
def serve(site: Site) -> Iterator[Callable[..., App]]:
    """Return what installs and enables a plugin of one dialect, and serves a model beside it."""
    with ExitStack() as stack:

        def serve(source: str, *, name: str = "acme", task: str = "embed", **settings: object) -> App:
            install(site, name, source)
            return create_app(stack.enter_context(fake_model(task, plugin=f"poolkit-{name}")), **settings)

        yield serve


def install(site: Site, name: str, source: str) -> None:
    module = f"poolkit_{name}_{site.path.parent.name}"  # one for each test: what was imported stays imported
    site.install(f"poolkit-{name}", "2.1.0", modules={module: source}, dialects={name: f"{module}:DIALECTS"})


def post(app: App, path: str, body: object, **headers: str):
    return ask(app, "POST", path, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_a_dialect_has_its_own_path_words_status_and_headers(serve):
    app = serve(ACME)
    response = post(app, "/acme/blue/vectors?verbose=yes", {"texts": ["a", "b c"], "size": 3})
    assert response.status_code == 201
    assert response.headers["x-acme-tokens"] == "7"
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    core = post(app, "/v1/embeddings", {"input": ["a", "b c"], "dimensions": 3}).json()
    assert answer == {
        "tenant": "blue",
        "model": "fake",
        "vectors": [item["embedding"] for item in core["data"]],
        "verbose": "yes",
    }


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b'{"texts": "a"}', {}, 422, "texts must be an array, got 'a'."),
        (b'{"texts": [], "colour": 1}', {}, 422, "colour is not known. Known: texts, size."),
        (b'{"texts": ["a"], "size": 0}', {}, 422, "dimensions: Input should be greater than or equal to 1"),
        (b'{"texts": ["a"], "size": 99}', {}, 422, "dimensions is 99; fake offers 1 to 8."),
        (b'{"texts": ["a"]}', {"X-Acme-Plan": "free"}, 422, "The free plan has no vectors."),
        (b'{"texts"', {}, 422, "The body is not valid JSON: unexpected end of data: line 1 column 9 (char 8)."),
        (b'{"texts": [], "model": "b"}', {}, 404, "The model `b` does not exist. This server serves: `fake`."),
        (
            b'{"texts": ["bug"]}',
            {},
            500,
            "dialect 'acme' of poolkit-acme 2.1.0 failed in decode. The server's log says why; the request id is id-1.",
        ),
    ],
)
def test_a_dialect_words_its_failures_itself(serve, caplog, content, headers, status, message):
    with caplog.at_level(logging.ERROR):
        response = ask(
            serve(ACME), "POST", "/acme/blue/vectors", content=content, headers={"x-request-id": "id-1", **headers}
        )
    assert (response.status_code, response.json()) == (status, {"problem": message, "id": "id-1"})
    assert caplog.text.count("Traceback") == (1 if status == 500 else 0)


def test_a_wrong_key_and_a_wrong_method_are_told_in_the_words_of_the_path(serve):
    app = serve(ACME, api_keys=["key"])
    assert post(app, "/acme/blue/vectors", {}).json()["problem"].startswith("This server needs an API key.")
    answer = ask(app, "GET", "/acme/blue/vectors", headers={"Authorization": "Bearer key"})
    assert answer.status_code == 405
    assert answer.json()["problem"] == "/acme/blue/vectors does not take GET. It takes POST."


def test_a_failing_dialect_is_counted_by_its_plugin(serve):
    app = serve(ACME)
    assert post(app, "/acme/blue/vectors", {"texts": ["bug"]}).status_code == 500
    metrics = ask(app, "GET", "/metrics").text
    assert 'poolkit_hook_failures_total{hook="decode",plugin="poolkit-acme",task="embed"} 1.0' in metrics


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        ("matches=lambda call, served: 1 / 0", "matches"),
        ("decode=lambda request, call, served: None", "decode"),
        ("decode=lambda request, call, served: BaseModel()", "decode"),
        ("encode=lambda response, request, call: b'no reply'", "encode"),
    ],
)
def test_a_dialect_that_breaks_the_contract_is_told_by_name(serve, fields, function):
    response = post(serve(f"{HEAD}DIALECTS = make({fields})"), "/other/embed", {"input": "a"})
    assert response.status_code == 500
    assert response.json()["error"]["message"].startswith(
        f"dialect 'acme' of poolkit-acme 2.1.0 failed in {function}. "
    )


def test_a_dialect_that_cannot_write_a_failure_leaves_it_to_poolkit(serve):
    app = serve(f"{HEAD}DIALECTS = make(encode_error=lambda failure: 1 / 0)")
    response = post(app, "/other/embed", {"input": 5})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")


def test_a_further_dialect_on_a_path_of_cores_reads_what_it_matches(serve):
    app = serve(ACME)
    documents = ["b", "c d", "a"]
    core = post(app, "/rerank", {"query": "a", "documents": documents})
    assert core.status_code == 200
    other = post(app, "/rerank", {"ask": "a", "among": documents})
    assert other.json() == [one["index"] for one in core.json()["results"]]
    assert post(app, "/rerank", {"query": "a"}).json()["error"]["message"] == "documents is required."
    assert post(app, "/rerank", {"among": []}).json()["problem"] == "ask is required."


def test_a_dialect_says_in_its_own_words_what_would_serve_it(serve):
    response = post(serve(ACME, task="classify"), "/acme/blue/vectors", {"texts": ["a"]})
    assert response.status_code == 422
    assert response.json()["problem"] == (
        "/acme/blue/vectors needs the operation 'embeddings'. This server serves the task 'classify', which offers: "
        "classify, pooling, rerank, score. Restart it with --task embed."
    )


def test_dialects_of_plugins_are_asked_in_the_order_of_enabling_unless_the_operator_names_another(site):
    for name in ("zebra", "apple"):
        matching = f"make('/embeddings', word={name!r}, matches=lambda call, served: 'dimensions' in call.body)"
        install(site, name, f"{HEAD}DIALECTS = {matching}")
    body = {"input": "a", "dimensions": 2}
    with fake_model("embed", plugin="poolkit-zebra") as served, fake_model("embed", plugin="poolkit-apple") as other:
        models = {"a": served, "b": other}
        assert post(create_app(models), "/embeddings", {**body, "model": "a"}).json() == "zebra"
        app = create_app(models, dialects=["apple"])
        assert post(app, "/embeddings", {**body, "model": "a"}).json() == "apple"
        assert post(app, "/embeddings", {"input": "a", "model": "a"}).json()["object"] == "list"


def test_the_operator_may_give_a_path_of_cores_to_a_dialect_that_reads_everything(serve):
    app = serve(f"{HEAD}DIALECTS = make('/embeddings')", dialects=["acme"])
    assert post(app, "/embeddings", {"input": "a"}).json() == "other"
    assert post(app, "/v1/embeddings", {"input": "a"}).json()["object"] == "list"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "DIALECTS = make('/embeddings')",
            "dialect 'acme' would read every request at '/embeddings', and poolkit's 'openai' none. Give it `matches`, "
            "or let the operator put it first: dialects = ['acme'].",
        ),
        (
            "DIALECTS = make('/health')",
            "dialect 'acme' is to be spoken at '/health', which is poolkit's own. Choose another path.",
        ),
        (
            "DIALECTS = (make(), make())",
            "dialect 'acme' would never be asked at '/other/embed': 'acme' of poolkit-acme 2.1.0 reads every request "
            "there. Give one `matches`.",
        ),
        (
            "DIALECTS = (make(), 7)",
            "dialect 'acme' points to an object of type int, not to a poolkit.Dialect or a tuple of them.",
        ),
    ],
)
def test_a_dialect_may_not_replace_what_is_there(serve, source, message):
    with pytest.raises(PluginInvalidError) as caught:
        serve(HEAD + source)
    assert caught.value.plugin == "poolkit-acme"
    assert str(caught.value) == f"poolkit-acme 2.1.0: {message}"


def test_a_misplaced_dialect_that_was_swept_in_is_left_out_with_a_warning_and_shown(site, caplog):
    install(site, "acme", f"{HEAD}DIALECTS = make('/embeddings')")
    with fake_model("embed", plugin="*") as served:
        app = create_app(served)
        assert post(app, "/embeddings", {"input": "a"}).json()["object"] == "list"
        [row] = [row for row in ask(app, "GET", "/tasks").json()["tasks"] if row["plugin"] == "poolkit-acme"]
    problem = (
        "poolkit-acme 2.1.0: dialect 'acme' would read every request at '/embeddings', and poolkit's 'openai' none. "
        "Give it `matches`, or let the operator put it first: dialects = ['acme']."
    )
    assert (row["status"], row["why"]) == ("quarantined", problem)
    assert any(problem in message for message in caplog.messages)


def test_a_misplaced_dialect_is_told_before_the_model_is_looked_at(site):
    install(site, "acme", f"{HEAD}DIALECTS = make('/health')")
    plugins = PluginConfig(enable=(Reference("poolkit-acme", "--plugin poolkit-acme"),))
    with pytest.raises(PluginInvalidError, match="is to be spoken at '/health'"):
        serve_until_stopped(Settings(model="no such model", port=0), plugins)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            "'other'",
            "Dialect.paths is ('other',); each path must begin with '/', and there must be one.",
        ),
        (
            "methods=('post',)",
            "Dialect.methods is ('post',); name HTTP methods in capitals, such as 'POST'.",
        ),
        ("operation=None", "Dialect.decode is missing: without an operation it makes the response."),
    ],
)
def test_a_dialect_that_could_never_be_served_is_told_where_it_is_made(serve, fields, message):
    with pytest.raises(Exception, match="failed to import") as caught:
        serve(f"{HEAD}DIALECTS = make({fields})")
    assert f"ValueError: {message}\n" in str(caught.value)


def test_an_order_that_names_no_dialect_is_told(serve):
    with pytest.raises(ConfigError) as caught:
        serve(ACME, dialects=["jna"])
    assert str(caught.value) == ("no dialect named 'jna'. Did you mean 'jina'?\n  Dialects: acme, jina, openai, vllm.")


def test_a_plugins_path_with_parameters_takes_no_path_of_cores(serve):
    app = serve(f"{HEAD}DIALECTS = make('/tasks/{{task}}/{{operation}}')")
    assert sorted(post(app, "/tasks/embed/embeddings", {"input": "a"}).json()) == ["embeddings", "usage"]
    assert post(app, "/tasks/any/thing", {"input": "a"}).json() == "other"


def test_a_dialect_may_need_no_model_and_read_no_json(serve):
    app = serve(f"""{HEAD}
class Size(BaseModel):
    size: int
    longest: int

def decode(request, call, served):
    return Size(size=len(call.raw), longest=served.info.max_model_len)

DIALECTS = make(
    "/sizes", operation=None, request=NoBody, response=Size, decode=decode, methods=("GET", "PUT"),
    encode=lambda response, request, call: Reply(str(response).encode(), headers={{"Content-Type": "text/plain"}}),
)
""")
    for method, content, size in (("GET", b"", 0), ("PUT", b"not JSON", 8)):
        response = ask(app, method, "/sizes", content=content)
        assert (response.status_code, response.text) == (200, f"size={size} longest=64")
        assert response.headers["content-type"] == "text/plain"
    assert set(ask(app, "POST", "/sizes").headers["allow"].split(", ")) == {"GET", "PUT"}


def test_one_path_may_take_json_and_other_bodies(serve):
    app = serve(f"""{HEAD}
DIALECTS = (
    make("/both", matches=lambda call, served: call.raw.startswith(b"{{"), word="json"),
    make(
        "/both", word="lines", request=NoBody,
        decode=lambda request, call, served: EmbeddingsRequest(input=call.raw.decode().splitlines()),
    ),
)
""")
    assert post(app, "/both", {"input": "a"}).json() == "json"
    assert ask(app, "POST", "/both", content=b"a\nb").json() == "lines"


def test_a_request_that_no_dialect_of_the_path_reads_is_told(serve):
    app = serve(f"{HEAD}DIALECTS = make(matches=lambda call, served: False)")
    response = post(app, "/other/embed", {"input": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "Nothing at /other/embed reads such a request. It is for: acme. See /docs."
    )


def test_a_task_that_answers_a_standard_operation_in_a_way_of_its_own_is_asked_at_its_own_route(tmp_path, monkeypatch):
    with open_site(tmp_path / "site", monkeypatch, dialects=CORE_DIALECTS), fake_model("classify") as served:
        response = post(create_app(served), "/rerank", {"query": "a", "documents": ["b"]})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "/rerank does not know how the task 'classify' answers 'rerank': in a way of its own. Ask "
        "/tasks/classify/rerank."
    )


def test_the_documentation_shows_every_dialect_of_a_path_and_its_parameters(serve):
    document = ask(serve(ACME), "GET", "/openapi.json").json()
    vectors = document["paths"]["/acme/{tenant}/vectors"]["post"]
    assert [parameter["name"] for parameter in vectors["parameters"]] == ["tenant"]
    schema = document["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    names = [one["$ref"].rpartition("/")[2] for one in schema["anyOf"]]
    assert names == ["AcmeRerank", "JinaRerankRequest"]
    assert all(document["components"]["schemas"][name]["examples"] for name in names)


def test_the_model_that_a_request_names_is_asked():
    with fake_model("embed") as embed, fake_model("classify") as classify:
        app = create_app({"vectors": embed, "labels": classify, "gpt": embed})
        for path, model, prefix in (
            ("/v1/embeddings", "vectors", "embd"),
            ("/v1/embeddings", "gpt", "embd"),
            ("/classify", "labels", "classify"),
        ):
            answer = post(app, path, {"input": "a", "model": model}).json()
            assert (answer["model"], answer["id"].partition("-")[0]) == (model, prefix)
        assert post(app, "/tasks/classify/classify", {"input": "a", "model": "labels"}).status_code == 200
        unnamed = post(app, "/v1/embeddings", {"input": "a"})
        unknown = post(app, "/v1/embeddings", {"input": "a", "model": "x"})
        models = ask(app, "GET", "/v1/models").json()["data"]
        metrics = ask(app, "GET", "/metrics").text.splitlines()
    listing = "This server serves: `vectors`, `labels`, `gpt`."
    assert (unnamed.status_code, unknown.status_code) == (400, 404)
    assert unnamed.json()["error"]["message"] == f"Say which model in the field `model`. {listing}"
    assert unknown.json()["error"]["message"] == f"The model `x` does not exist. {listing}"
    assert [(one["id"], one["task"]) for one in models] == [
        ("vectors", "embed"),
        ("labels", "classify"),
        ("gpt", "embed"),
    ]
    assert 'poolkit_prompts_total{model="vectors",outcome="done"} 2.0' in metrics
    assert 'poolkit_prompts_total{model="labels",outcome="done"} 2.0' in metrics
    assert not any('model="gpt"' in line for line in metrics)


def test_a_path_may_name_the_model(serve):
    app = serve(f"{HEAD}DIALECTS = make('/deployments/{{model}}/embed')")
    assert post(app, "/deployments/fake/embed", {"input": "a"}).json() == "other"
    assert post(app, "/deployments/x/embed", {"input": "a"}).status_code == 404


def test_an_app_can_be_mounted_in_another_one():
    with fake_model() as served:
        app = Starlette(routes=[Mount("/models", create_app(served, api_keys=["key"]))])
        assert ask(app, "GET", "/models/health").status_code == 200
        assert ask(app, "POST", "/models/v1/embeddings", json={"input": "a"}).status_code == 401
        headers = {"Authorization": "Bearer key"}
        answer = ask(app, "POST", "/models/v1/embeddings", json={"input": "a"}, headers=headers)
        missing = ask(app, "POST", "/models/v1/embedings", json={"input": "a"}, headers=headers)
    assert answer.status_code == 200
    assert missing.json()["error"]["message"] == (
        "There is no route '/v1/embedings'. Did you mean '/v1/embeddings'? All routes are listed at /docs."
    )


def test_an_app_without_a_model_is_refused():
    with pytest.raises(ConfigError, match=r"^create_app was given no model\. Give it at least one\.\Z"):
        create_app({})
