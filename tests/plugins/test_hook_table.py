"""When each hook is called, how often, where, and with what: the table of the plugin contract, a test for each row."""

from __future__ import annotations

import asyncio
import threading

from distributions import Request, Response, Site, fake_encoder
from poolkit import create_app
from poolkit.config import PluginConfig, Reference
from poolkit.registry import Registry
from poolkit.testing import FAKE_MODEL
from serving import ask, fake_model

RECORDING = """
import threading
from distributions import Processor, make_task
from poolkit.contract import Prepared, hookimpl
calls = []
class Recording(Processor):
    def pre_process(self, request):
        calls.append(("pre_process", threading.current_thread(), request))
        return Prepared(request.texts, state=request)
    def post_process(self, prepared, outputs):
        calls.append(("post_process", threading.current_thread(), prepared.state))
        assert [len(output.prompt_token_ids) - 2 for output in outputs] == [len(t.split()) for t in prepared.prompts]
        return super().post_process(prepared, outputs)
TASK = make_task("recorded", io_processor="poolkit_recording:Recording")
"""
WRAPS = """
from poolkit.contract import hookimpl
wrapped = []
@hookimpl
def poolkit_wrap(context, settings):
    wrapped.append((context.task.name, context.operation.name, context.model.name))
    return []
"""


def install(site: Site) -> list[tuple[str, threading.Thread, Request]]:
    """Install the recording task and return its calls, which are empty until it is bound."""
    tasks = {"recorded": "poolkit_recording:TASK"}
    site.install("poolkit-recording", modules={"poolkit_recording": RECORDING}, tasks=tasks)
    import poolkit_recording  # written a moment ago

    return poolkit_recording.calls


def test_both_hooks_are_called_once_a_request_in_a_worker_thread_with_the_outputs_in_prompt_order(site: Site):
    calls = install(site)
    with fake_model("recorded", plugin="recording") as served:
        app = create_app(served)
        loop_thread: list[threading.Thread] = []

        async def remember() -> None:
            loop_thread.append(threading.current_thread())

        asyncio.run(remember())
        texts = ["one two three", "one", "one two"]
        response = ask(app, "POST", "/tasks/recorded/measure", json={"texts": texts})
    assert response.json() == {"lengths": [8, 8, 8]}
    assert [(hook, request.texts) for hook, _, request in calls] == [("pre_process", texts), ("post_process", texts)]
    assert not {thread for _, thread, _ in calls} & set(loop_thread)


def test_the_same_hooks_serve_offline_calls(site: Site):
    calls = install(site)
    with fake_model("recorded", plugin="recording") as served:
        assert served.run("measure", Request(texts=["one", "two three"])) == Response(lengths=[8, 8])
    assert [hook for hook, _, _ in calls] == ["pre_process", "post_process"]


def test_poolkit_wrap_is_called_once_for_each_operation_that_is_bound(site: Site):
    source = (
        "from dataclasses import replace\nfrom distributions import make_task\n"
        "[one] = make_task('pair').operations\n"
        "PAIR = make_task('pair', operations=(one, replace(one, name='other')))\n"
    )
    site.install("poolkit-pair", modules={"poolkit_pair": source}, tasks={"pair": "poolkit_pair:PAIR"})
    site.install("poolkit-wraps", modules={"poolkit_wraps": WRAPS}, hooks={"wraps": "poolkit_wraps"})
    registry = Registry.load(PluginConfig(enable=(Reference("pair", "a test"), Reference("wraps", "a test"))))
    import poolkit_wraps  # loaded by now

    assert poolkit_wraps.wrapped == []
    registry.bind(registry.get_pooling_task(["pair"], "pair"), FAKE_MODEL, fake_encoder())
    assert poolkit_wraps.wrapped == [("pair", "measure", "fake"), ("pair", "other", "fake")]
