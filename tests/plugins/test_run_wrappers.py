"""Wrappers around the model: what `run` is given and gives, in which order, and whose failure is whose."""

from __future__ import annotations

import logging
import sys

import pytest

from distributions import Request, Response, Site
from poolkit.errors import HookError, RequestError
from serving import fake_model

SOURCE = """
from poolkit import hookimpl
from poolkit.errors import RequestError
events = []
class Wrapper:
    def run(self, encoded):
        {body}
@hookimpl
def poolkit_wrap(context, settings): return [Wrapper()]
"""


def install(site: Site, name: str, body: str) -> None:
    """Install a plugin whose one wrapper does these statements in `run`."""
    modules = {f"poolkit_{name}": SOURCE.format(body=body)}
    site.install(f"poolkit-{name}", "1.2.0", modules=modules, hooks={name: f"poolkit_{name}"})


def test_a_wrapper_runs_fewer_prompts_and_answers_for_all_that_it_was_given(site: Site):
    install(site, "first", "outcomes = yield encoded[:1]; events.append(len(outcomes)); return outcomes * len(encoded)")
    with fake_model("embed", plugin="first") as served:
        assert served.run("measure", Request(texts=["a", "b", "c"])) == Response(lengths=[8, 8, 8])
    assert sys.modules["poolkit_first"].events == [1]


def test_the_wrappers_stand_in_the_order_in_which_their_plugins_were_enabled(site: Site):
    count = "outcomes = yield encoded * 2; events.append((len(encoded), len(outcomes))); return outcomes[:len(encoded)]"
    install(site, "apple", count)
    install(site, "zebra", count)
    with fake_model("embed", plugin="*") as served:
        served.run("measure", Request(texts=["a"]))
    assert sys.modules["poolkit_apple"].events == [(1, 2)]
    assert sys.modules["poolkit_zebra"].events == [(2, 4)]


def test_a_wrapper_may_refuse_a_request(site: Site):
    install(site, "strict", "raise RequestError('no more today'); yield")
    with fake_model("embed", plugin="strict") as served, pytest.raises(RequestError) as caught:
        served.run("measure", Request(texts=["a"]))
    assert str(caught.value) == "no more today"


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise OSError('disk full'); yield", OSError("disk full")),
        ("yield encoded; raise ValueError('disk full')", ValueError("disk full")),
        ("return []; yield", TypeError("ended without a yield")),
        ("yield", TypeError("yielded something else than a sequence of EncodedPrompt")),
        ("yield ['a']", TypeError("yielded something else than a sequence of EncodedPrompt")),
        ("yield encoded; yield encoded", TypeError("yielded more than once")),
        ("yield encoded; return", TypeError("returned NoneType for 2 prompts")),
        ("return (yield encoded)[:1]", TypeError("returned 1 outcomes for 2 prompts")),
        ("yield encoded; return encoded", TypeError("returned something else than PooledOutput or exceptions")),
    ],
)
def test_a_wrapper_that_fails_is_blamed_and_not_the_task(
    site: Site, caplog: pytest.LogCaptureFixture, body: str, cause: BaseException
):
    install(site, "cache", body)
    message = "poolkit-cache 1.2.0, wrapped around task 'embed' of poolkit 0.1.0, failed in run."
    with fake_model("embed", plugin="cache") as served:
        seen: list[tuple[str, str]] = []
        served.operations["measure"].observe(lambda hook, plugin, seconds: seen.append((hook, plugin)))  # noqa: ARG005
        with pytest.raises(HookError) as caught:
            served.run("measure", Request(texts=["a", "b"]))
    assert str(caught.value) == message
    assert (caught.value.plugin, caught.value.task, caught.value.hook) == ("poolkit-cache", "embed", "run")
    assert repr(caught.value.__cause__) == repr(cause)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, message)
    assert ("run", "poolkit-cache") in seen
