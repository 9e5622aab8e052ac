"""A plugin that is broken, slow or hostile takes neither the server down nor anybody else's requests with it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from distributions import Request, Site, fake_encoder
from poolkit import create_app
from poolkit.config import PluginConfig, Reference
from poolkit.registry import Registry
from poolkit.server import App
from poolkit.server.drain import Drain
from poolkit.testing import FAKE_MODEL
from serving import fake_model

TASK = """
import asyncio, sys, threading
from dataclasses import replace
import numpy as np
from distributions import Processor, Request, Response, make_task
from poolkit.contract import Prepared, hookimpl
from poolkit.errors import RequestError
may_go = threading.Event()
class Vanishing(list):
    def __getitem__(self, index): return list(self)[:0]
class Sick(Processor):
{hook}
[well] = make_task("mixed").operations
sick = replace(well, name="sick", io_processor="poolkit_hostile:Sick", per_prompt=("lengths",))
MIXED = make_task("mixed", operations=(well, sick))
"""
ARGUMENTS = {"pre_process": "request", "post_process": "prepared, outputs"}
WRAPPER = """
from poolkit.contract import hookimpl
from poolkit.server import App
class Wrapper:
    @hookimpl(wrapper=True)
    def pre_process(self, request):
        if "spare me" in request.texts:
            return (yield)
        {body}
@hookimpl
def poolkit_wrap(context, settings): return [Wrapper()]
"""
MANY = 64
"""Requests at a time: more than any pool of this server has threads."""


@contextmanager
def serving_hook(site: Site, hook: str, body: str) -> Iterator[App]:
    """Yield a server of a task whose operation `measure` is well, and whose `sick` does this in one of its hooks."""
    source = TASK.format(hook=f"    def {hook}(self, {ARGUMENTS[hook]}):\n        {body}\n")
    modules = {"poolkit_hostile": source}
    site.install("poolkit-hostile", "6.6.6", modules=modules, tasks={"mixed": "poolkit_hostile:MIXED"})
    with fake_model("mixed", plugin="hostile") as served:
        yield create_app(served)


def client(app: App) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def ask_both(app: App) -> tuple[list[httpx.Response], list[httpx.Response], httpx.Response]:
    """Return the answers of many requests to the sick and the well operation at a time, then that of /health."""

    async def send() -> tuple[list[httpx.Response], list[httpx.Response], httpx.Response]:
        async with client(app) as http:
            requests = [
                http.post(f"/tasks/mixed/{operation}", json={"texts": ["x"] * number})
                for number in range(1, 9)
                for operation in ("sick", "measure")
            ]
            answers = await asyncio.gather(*requests)
            return answers[::2], answers[1::2], await http.get("/health")

    return asyncio.run(send())


def assert_well(well: list[httpx.Response], health: httpx.Response) -> None:
    expected = [(200, {"lengths": [8] * number}) for number in range(1, 9)]
    assert [(answer.status_code, answer.json()) for answer in well] == expected
    assert health.status_code == 200


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


@pytest.mark.parametrize("source", ["raise RuntimeError('no')", "import sys\nsys.exit(1)", "def broken(:"])
@pytest.mark.parametrize("group", ["tasks", "hooks"])
def test_a_plugin_that_fails_at_import_leaves_the_other_plugins_alone(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, group: str
):
    site.install_task("poolkit-good", "1.0.0", "good")
    entries = {"tasks": {"bad": "poolkit_bad:BAD"}, "hooks": {"bad": "poolkit_bad"}}[group]
    site.install("poolkit-bad", modules={"poolkit_bad": source}, **{group: entries})
    registry = Registry.load(PluginConfig(enable=(Reference("*", "--plugin *"),)))
    bound = registry.bind(registry.get_pooling_task(["good"], "good"), FAKE_MODEL, fake_encoder())
    assert bound.operations["measure"].pre_process(Request(texts=["a"])).prompts == ["a"]
    bound.close()
    assert [record.levelno for record in caplog.records if "is not available" in record.getMessage()] == [
        logging.WARNING
    ]


async def post(app: App, path: str, texts: list[str]) -> httpx.Response:
    async with client(app) as http:
        return await http.post(path, json={"texts": texts})


@pytest.mark.parametrize(
    ("hook", "body"),
    [
        ("pre_process", "raise RuntimeError('/secret at 0x7f')"),
        ("pre_process", "raise ValueError('/secret at 0x7f')"),
        ("pre_process", "sys.exit('/secret')"),
        ("pre_process", "raise KeyboardInterrupt"),
        ("pre_process", "raise asyncio.CancelledError"),
        ("pre_process", "raise MemoryError"),
        ("pre_process", "return self.pre_process(request)"),
        ("pre_process", "return None"),
        ("pre_process", "return request"),
        ("pre_process", "return Prepared(request.texts + [None])"),
        ("pre_process", "request.texts = []"),
        ("post_process", "raise RuntimeError('/secret at 0x7f')"),
        ("post_process", "raise ValueError('/secret at 0x7f')"),
        ("post_process", "sys.exit('/secret')"),
        ("post_process", "raise KeyboardInterrupt"),
        ("post_process", "raise GeneratorExit"),
        ("post_process", "return None"),
        ("post_process", "return [8]"),
        ("post_process", "return Response(lengths='/secret')"),
        ("post_process", "return Response(lengths=[8] * (len(outputs) - 1))"),
        ("post_process", "prepared.prompts = []"),
    ],
)
def test_a_hook_that_fails_fails_its_own_requests_and_no_other(
    site: Site, caplog: pytest.LogCaptureFixture, hook: str, body: str
):
    with serving_hook(site, hook, body) as app:
        sick, well, health = ask_both(app)
        metrics = asyncio.run(get(app, "/metrics")).text
    assert_well(well, health)
    for answer in sick:
        assert answer.status_code == 500
        assert answer.json()["error"] == {
            "message": f"task 'mixed' of poolkit-hostile 6.6.6 failed in {hook}. "
            f"The server's log says why; the request id is {answer.headers['x-request-id']}.",
            "type": "server_error",
            "param": None,
            "code": "plugin_failed",
        }
    assert len([record for record in caplog.records if record.exc_info]) == len(sick)
    failures = f'poolkit_hook_failures_total{{hook="{hook}",plugin="poolkit-hostile",task="mixed"}} {len(sick)}.0'
    assert failures in metrics.splitlines()


async def get(app: App, path: str) -> httpx.Response:
    async with client(app) as http:
        return await http.get(path)


def test_too_few_results_are_told_in_the_log(site: Site, caplog: pytest.LogCaptureFixture):
    with serving_hook(site, "post_process", "return Response(lengths=[8])") as app:
        asyncio.run(post(app, "/tasks/mixed/sick", ["a", "b"]))
    [cause] = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert repr(cause) == "TypeError('returned 1 lengths for 2 prompts')"


@pytest.mark.parametrize(
    ("hook", "body"),
    [
        ("pre_process", "raise RequestError('no such label')"),
        ("post_process", "raise RequestError('no such label')"),
    ],
)
def test_a_hook_that_refuses_a_request_is_passed_on_with_its_words(site: Site, hook: str, body: str):
    with serving_hook(site, hook, body) as app:
        sick, well, health = ask_both(app)
    assert_well(well, health)
    assert {(answer.status_code, message(answer)) for answer in sick} == {(400, "no such label")}


@pytest.mark.parametrize(
    ("hook", "body"),
    [
        ("pre_process", "texts = list(request.texts); request.texts.clear(); return Prepared(texts)"),
        (
            "pre_process",
            "self.kept = vars(self).get('kept', []); self.kept[:] = request.texts; return Prepared(list(self.kept))",
        ),
        ("pre_process", "return Prepared(Vanishing(request.texts))"),
        (
            "post_process",
            "lengths = [len(output.data) for output in outputs]; "
            "[output.data.fill(np.nan) for output in outputs]; outputs.clear(); return Response(lengths=lengths)",
        ),
    ],
)
def test_a_hook_that_changes_its_input_changes_no_other_request(site: Site, hook: str, body: str):
    with serving_hook(site, hook, body) as app:
        sick, well, health = ask_both(app)
    assert_well(well, health)
    if "self.kept" not in body:  # a processor can still mix up the requests of its own operation
        assert_well(sick, health)


@pytest.mark.parametrize("hook", ["pre_process", "post_process"])
def test_a_slow_hook_holds_up_neither_other_operations_nor_the_server(site: Site, hook: str):
    async def run(app: App, drain: Drain) -> tuple[httpx.Response, httpx.Response, list[httpx.Response], str]:
        async with client(app) as http:
            slow = [asyncio.ensure_future(http.post("/tasks/mixed/sick", json={"texts": ["a"]})) for _ in range(MANY)]
            try:
                while drain.in_flight < MANY:
                    await asyncio.sleep(0)
                well = await http.post("/tasks/mixed/measure", json={"texts": ["a", "b"]})
                health = await http.get("/health")
                are_waiting = not any(request.done() for request in slow)
            finally:
                sys.modules["poolkit_hostile"].may_go.set()
            answers = await asyncio.gather(*slow)
            assert are_waiting
            return well, health, answers, (await http.get("/metrics")).text

    body = f"may_go.wait(); return super().{hook}({ARGUMENTS[hook]})"
    modules = {"poolkit_hostile": TASK.format(hook=f"    def {hook}(self, {ARGUMENTS[hook]}): {body}\n")}
    site.install("poolkit-hostile", "6.6.6", modules=modules, tasks={"mixed": "poolkit_hostile:MIXED"})
    with fake_model("mixed", plugin="hostile") as served:
        drain = Drain()
        well, health, answers, metrics = asyncio.run(run(create_app(served, drain=drain), drain))
    assert (well.status_code, well.json()) == (200, {"lengths": [8, 8]})
    assert health.status_code == 200
    assert {answer.status_code for answer in answers} == {200}
    labels = f'hook="{hook}",model="fake",operation="sick",plugin="poolkit-hostile",task="mixed"'
    assert f"poolkit_hook_seconds_count{{{labels}}} {MANY}.0" in metrics.splitlines()
    assert f'poolkit_hook_seconds_bucket{{hook="{hook}",le="0.0001",model="fake",operation="sick",' in metrics


def test_a_server_beside_one_that_hangs_goes_on(site: Site):
    source = TASK.format(hook="    def pre_process(self, request): may_go.wait(); return Prepared(request.texts)\n")
    site.install(
        "poolkit-hostile", "6.6.6", modules={"poolkit_hostile": source}, tasks={"mixed": "poolkit_hostile:MIXED"}
    )

    async def run(hanging: App, other: App) -> tuple[httpx.Response, list[httpx.Response]]:
        async with client(hanging) as http:
            stuck = [asyncio.ensure_future(http.post("/tasks/mixed/sick", json={"texts": ["a"]})) for _ in range(MANY)]
            try:
                answer = await post(other, "/tasks/embed/measure", ["a"])
            finally:
                sys.modules["poolkit_hostile"].may_go.set()
            return answer, await asyncio.gather(*stuck)

    with fake_model("mixed", plugin="hostile") as first, fake_model("embed") as second:
        answer, stuck = asyncio.run(run(create_app(first), create_app(second)))
    assert answer.json() == {"lengths": [8]}
    assert {done.status_code for done in stuck} == {200}


@pytest.mark.parametrize(
    "body", ["raise OSError; yield", "yield; raise OSError", "yield; return None", "import sys; sys.exit(1); yield"]
)
def test_a_wrapper_that_fails_is_named_and_the_next_request_goes_on(site: Site, body: str):
    site.install(
        "poolkit-wrapper", modules={"poolkit_wrapper": WRAPPER.format(body=body)}, hooks={"w": "poolkit_wrapper"}
    )
    with fake_model("embed", plugin="wrapper") as served:
        app = create_app(served)
        failed = asyncio.run(post(app, "/tasks/embed/measure", ["a"]))
        answered = asyncio.run(post(app, "/tasks/embed/measure", ["spare me"]))
        metrics = asyncio.run(get(app, "/metrics")).text
    assert failed.status_code == 500
    assert message(failed) == (
        "poolkit-wrapper 1.0.0, wrapped around task 'embed' of poolkit 0.1.0, failed in pre_process. "
        f"The server's log says why; the request id is {failed.headers['x-request-id']}."
    )
    assert (answered.status_code, answered.json()) == (200, {"lengths": [8]})
    failures = 'poolkit_hook_failures_total{hook="pre_process",plugin="poolkit-wrapper",task="embed"} 1.0'
    assert failures in metrics.splitlines()
