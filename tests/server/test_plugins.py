"""A third party's task behind HTTP: its routes, its failures, and what it may not do."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributions import CORE_DIALECTS, Site, open_site
from poolkit import create_app
from poolkit.errors import PluginInvalidError
from serving import ask, fake_model

ECHO = """
from distributions import Processor, Request, Response
from poolkit import Operation, Output, PoolingTask
from poolkit.errors import RequestError

class Echo(Processor):
    def pre_process(self, request):
        if "bad" in request.texts:
            raise RequestError("bad is not a text")
        if "bug" in request.texts:
            raise RuntimeError("/secret/path at 0x7f00")
        return super().pre_process(request)

ECHO = PoolingTask(
    name="echo",
    api=1,
    summary="Measures texts.",
    output=Output.VECTOR,
    operations=(
        Operation(
            name="measure",
            request=Request,
            response=Response,
            io_processor="poolkit_echo:Echo",
            routes=({route!r},),
        ),
    ),
)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with open_site(tmp_path / "site", monkeypatch, dialects=CORE_DIALECTS) as opened:
        yield opened


def install(site: Site, route: str = "/echo/measure") -> None:
    source = ECHO.replace("{route!r}", repr(route))
    site.install("poolkit-echo", "0.3.1", modules={"poolkit_echo": source}, tasks={"echo": "poolkit_echo:ECHO"})


@pytest.fixture
def app(site: Site) -> Iterator:
    install(site)
    with fake_model("echo", plugin="poolkit-echo") as served:
        yield create_app(served)


@pytest.mark.parametrize("path", ["/tasks/echo/measure", "/echo/measure", "/pooling"])
def test_a_plugins_operation_is_served_on_its_own_routes_and_pooling(app, path):
    response = ask(app, "POST", path, json={"texts": ["a", "b c"]})
    assert (response.status_code, response.json()) == (200, {"lengths": [8, 8]})


def test_a_standard_route_says_which_task_is_served_and_what_would_serve_it(app):
    response = ask(app, "POST", "/v1/embeddings", json={"input": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "/v1/embeddings needs the operation 'embeddings'. This server serves the task 'echo', which offers: measure. "
        "No enabled task that the model can serve offers it."
    )


def test_a_plugins_value_error_is_the_clients_fault(app):
    response = ask(app, "POST", "/echo/measure", json={"texts": ["bad"]})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "bad is not a text"


def test_a_plugins_bug_names_it_and_the_request_and_nothing_more(app, caplog):
    with caplog.at_level(logging.ERROR):
        response = ask(app, "POST", "/echo/measure", json={"texts": ["bug"]}, headers={"x-request-id": "id-1"})
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "task 'echo' of poolkit-echo 0.3.1 failed in pre_process. "
        "The server's log says why; the request id is id-1.",
        "type": "server_error",
        "param": None,
        "code": "plugin_failed",
    }
    assert caplog.text.count("Traceback") == 1
    assert 'poolkit_hook_failures_total{hook="pre_process",plugin="poolkit-echo",task="echo"} 1.0' in (
        ask(app, "GET", "/metrics").text
    )


def test_tasks_lists_what_is_installed_and_served(app):
    answer = ask(app, "GET", "/tasks").json()
    assert answer["models"] == {
        "fake": {"task": "echo", "operations": {"measure": ["/tasks/echo/measure", "/echo/measure", "/pooling"]}}
    }
    assert {
        "status": "enabled",
        "kind": "task",
        "name": "echo",
        "plugin": "poolkit-echo",
        "version": "0.3.1",
        "entry_point": "poolkit_echo:ECHO",
        "why": "enabled by poolkit.testing",
    } in answer["tasks"]


@pytest.mark.parametrize("route", ["/health", "/v1/embeddings", "/pooling", "/docs", "/metrics"])
def test_a_plugin_may_not_take_a_route_of_the_core(site, route):
    install(site, route)
    with fake_model("echo", plugin="poolkit-echo") as served, pytest.raises(PluginInvalidError) as caught:
        create_app(served)
    assert caught.value.plugin == "poolkit-echo"
    assert str(caught.value) == (
        f"poolkit-echo 0.3.1: operation 'measure' asks for the route {route!r}, which is taken. "
        "Choose another path, or leave it out: the operation has /tasks/<task>/<operation> anyway."
    )
