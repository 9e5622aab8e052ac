"""Hooks and wrappers learn whose request they serve: by the name of its key, never by the key."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from distributions import Site
from poolkit import LLM, EmbeddingsRequest, RequestScope, create_app, current_request
from poolkit.errors import ConfigError
from poolkit.testing import FakeBackbone, fake_model
from serving import ask

TENANTS = """
from poolkit import current_request, hookimpl

SEEN = []

class Recorder:
    @hookimpl(wrapper=True)
    def pre_process(self, request):
        SEEN.append(("pre_process", current_request()))
        return (yield)

    def run(self, encoded):
        SEEN.append(("run", current_request()))
        outcomes = yield encoded
        SEEN.append(("run", current_request()))
        return outcomes

    @hookimpl(wrapper=True)
    def post_process(self, prepared, outputs):
        SEEN.append(("post_process", current_request()))
        return (yield)

@hookimpl
def poolkit_wrap(context, settings):
    return [Recorder()]
"""


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Return what the wrapper of the plugin poolkit-tenants saw."""
    monkeypatch.syspath_prepend(tmp_path)
    Site(tmp_path).install(
        "poolkit-tenants", modules={"poolkit_tenants": TENANTS}, hooks={"tenants": "poolkit_tenants"}
    )
    monkeypatch.delitem(sys.modules, "poolkit_tenants", raising=False)
    yield importlib.import_module("poolkit_tenants").SEEN
    del sys.modules["poolkit_tenants"]


def test_every_hook_of_a_request_knows_the_name_of_its_key_and_the_headers_that_the_operator_lists(seen):
    with fake_model("embed", plugin="poolkit-tenants") as served:
        app = create_app(served, named_api_keys={"acme": "s3cret"}, plugin_headers=["X-Team"])
        headers = {"authorization": "Bearer s3cret", "x-team": "search", "x-other": "1", "x-request-id": "r1"}
        answer = ask(app, "POST", "/v1/embeddings", json={"input": "a"}, headers=headers)
    assert answer.status_code == 200
    assert [hook for hook, _ in seen] == ["pre_process", "run", "run", "post_process"]
    for _, scope in seen:
        assert (scope.origin, scope.request_id, scope.key_name) == ("http", "r1", "acme")
        assert dict(scope.headers) == {"x-team": "search"}
    assert "s3cret" not in repr(seen)


def test_a_key_without_a_name_has_none(seen):
    with fake_model("embed", plugin="poolkit-tenants") as served:
        app = create_app(served, api_keys=["plain"], named_api_keys={"acme": "s3cret"})
        ask(app, "POST", "/v1/embeddings", json={"input": "a"}, headers={"authorization": "Bearer plain"})
        refused = ask(app, "POST", "/v1/embeddings", json={"input": "a"}, headers={"authorization": "Bearer x"})
    assert {scope.key_name for _, scope in seen} == {None}
    assert refused.status_code == 401


def test_offline_each_call_is_a_request_of_its_own(seen):
    with LLM(enable=["poolkit-tenants"], dtype="float32") as llm:
        llm.embed("a", use_tqdm=False)
        llm.embed("b", use_tqdm=False)
    scopes = [scope for _, scope in seen]
    assert {(scope.origin, scope.key_name, dict(scope.headers) == {}) for scope in scopes} == {("offline", None, True)}
    assert len({scope.request_id for scope in scopes}) == 2


def test_outside_of_a_hook_there_is_no_request():
    with pytest.raises(LookupError):
        current_request()


def test_what_runs_in_the_model_knows_no_request():
    asked = []

    class Curious(FakeBackbone):
        def __call__(self, batch):
            with pytest.raises(LookupError):
                current_request()
            asked.append(len(batch))
            return super().__call__(batch)

    with fake_model("embed", backbone=Curious) as served:
        served.run("embeddings", EmbeddingsRequest(input="a"))
        assert ask(create_app(served), "POST", "/v1/embeddings", json={"input": "a"}).status_code == 200
    assert asked == [1, 1]


def test_a_scope_does_not_print_the_values_of_headers():
    scope = RequestScope("http", "r1", "acme", {"x-team": "search"})
    assert repr(scope) == "RequestScope(origin='http', request_id='r1', key_name='acme')"


@pytest.mark.parametrize("header", ["Authorization", "Cookie", "Proxy-Authorization", "X-API-Key", "api-key"])
def test_a_header_that_carries_a_key_cannot_be_listed(header):
    expected = (
        f"plugin_headers names {header.lower()!r}, which carries a key that no plugin may read. Leave it out; plugins "
        "learn the name of a key from named_api_keys."
    )
    with fake_model("embed") as served, pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        create_app(served, plugin_headers=[header])
