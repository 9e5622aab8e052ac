"""Wrappers around a processor: their order, what they can change, and whose failure is whose."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import numpy as np
import pytest

from distributions import Request, Response, Site, fake_encoder, make_model
from poolkit.config import PluginConfig, Reference
from poolkit.contract import PooledOutput, Prepared
from poolkit.errors import HookError, RequestError
from poolkit.registry import BoundOperation, Registry

HEADER = """
from dataclasses import replace
from distributions import Request, Response
from poolkit.contract import Prepared, hookimpl
from poolkit.errors import HookError, RequestError
events = []
around = hookimpl(wrapper=True)
class Means(Response):
    mean: float
class Wrapper:
"""
FOOTER = """
@hookimpl
def poolkit_wrap(context, settings):
    return [Wrapper()]
"""
STATEFUL = """
from distributions import Processor, make_task
from poolkit.contract import Prepared
class Stateful(Processor):
    def pre_process(self, request): return Prepared(request.texts, state=request)
STATEFUL = make_task("stateful", io_processor="poolkit_stateful:Stateful")
"""
PAIR_FOOTER = FOOTER.replace("[Wrapper()]", "[Wrapper('outer'), Wrapper('inner')]")


def output(size: int) -> PooledOutput:
    return PooledOutput(np.zeros(size, np.float32), (1, 2))


@pytest.fixture
def wrap(site: Site) -> Callable[..., BoundOperation]:
    """Return a function that binds embed's operation with plugins given as the body of each one's wrapper."""

    def bind(task: str = "embed", **plugins: str) -> BoundOperation:
        for name, body in plugins.items():
            modules = {f"poolkit_{name}": HEADER + body + ("" if "poolkit_wrap" in body else FOOTER)}
            site.install(f"poolkit-{name}", "1.2.0", modules=modules, hooks={name: f"poolkit_{name}"})
        enable = tuple(Reference(name, f"--plugin {name}") for name in (*plugins, *({task} - {"embed"})))
        registry = Registry.load(PluginConfig(enable=enable))
        bound = registry.bind(registry.get_pooling_task([task], task), make_model(), fake_encoder())
        return bound.operations["measure"]

    return bind


def post_process(operation: BoundOperation) -> object:
    return operation.post_process(Prepared(["a", "b"]), [output(3), output(4)])


TELLING = """
    @around
    def pre_process(self, request):
        request.texts.append("{name} in")
        prepared = yield
        return replace(prepared, prompts=[prompt + ", {name} out" for prompt in prepared.prompts])
"""


def test_the_plugin_that_was_enabled_first_is_outermost(wrap):
    operation = wrap(zebra=TELLING.format(name="zebra"), apple=TELLING.format(name="apple"))
    assert [wrapper.plugin.name for wrapper in operation.wrappers] == ["poolkit-zebra", "poolkit-apple"]
    assert operation.pre_process(Request(texts=["a"])) == Prepared(
        [f"{prompt}, apple out, zebra out" for prompt in ("a", "zebra in", "apple in")]
    )


def test_the_wrappers_of_one_plugin_stand_in_the_order_of_the_list(wrap):
    telling = TELLING.replace('"{name} in"', "self.name").replace('", {name} out"', "self.name")
    operation = wrap(pair=f"    def __init__(self, name=''): self.name = name\n{telling}{PAIR_FOOTER}")
    assert operation.pre_process(Request(texts=["a"])) == Prepared(
        [f"{prompt}innerouter" for prompt in ("a", "outer", "inner")]
    )


def test_a_wrapper_may_answer_for_what_it_surrounds(wrap):
    body = """
    @around
    def post_process(self):
        try:
            return (yield)
        except HookError:
            return Response(lengths=[])
"""
    failing = "    @around\n    def post_process(self):\n        yield\n        raise OSError\n"
    assert post_process(wrap(patient=body, failing=failing)) == Response(lengths=[])


@pytest.mark.parametrize(("hook", "expected"), [("pre_process", "Prepared"), ("post_process", "Response")])
def test_a_wrapper_that_swallows_a_failure_and_returns_nothing_is_blamed(wrap, hook: str, expected: str):
    swallowing = f"    @around\n    def {hook}(self):\n        try: yield\n        except HookError: pass\n"
    failing = f"    @around\n    def {hook}(self):\n        yield\n        raise OSError\n"
    operation = wrap(quiet=swallowing, failing=failing)
    with pytest.raises(HookError) as caught:
        operation.pre_process(Request(texts=["a"])) if hook == "pre_process" else post_process(operation)
    assert caught.value.plugin == "poolkit-quiet"
    assert repr(caught.value.__cause__) == repr(TypeError(f"returned NoneType, not {expected}"))


def test_a_wrapper_sees_the_refusal_of_what_it_surrounds_and_lets_it_through(wrap):
    outer = """
    @around
    def post_process(self):
        try:
            return (yield)
        finally:
            events.append("left")
"""
    inner = "    @around\n    def post_process(self):\n        yield\n        raise RequestError('no such label')\n"
    with pytest.raises(RequestError) as caught:
        post_process(wrap(outer=outer, inner=inner))
    assert (type(caught.value), str(caught.value)) == (RequestError, "no such label")
    assert sys.modules["poolkit_outer"].events == ["left"]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("yield; raise OSError('disk full')", OSError("disk full")),
        ("raise OSError('disk full'); yield", OSError("disk full")),
        ("yield; import sys; sys.exit(2)", SystemExit(2)),
        ("yield; return None", TypeError("returned NoneType, not Response")),
        ("yield; yield", TypeError("yielded more than once")),
        ("return Response(lengths=[]); yield", TypeError("ended without a yield")),
        ("yield prepared, outputs", TypeError("yielded tuple: what it surrounds gets the hook's own arguments")),
        (
            "yield; return Means.model_construct(lengths=[], mean=float('nan'))",
            ValueError("returned a response whose mean is not finite"),
        ),
    ],
)
def test_a_wrapper_that_fails_is_blamed_and_not_the_task(
    wrap, caplog: pytest.LogCaptureFixture, body: str, cause: BaseException
):
    quiet = "    @around\n    def post_process(self): return (yield)\n"
    operation = wrap(quiet=quiet, cache=f"    @around\n    def post_process(self, prepared, outputs): {body}\n")
    message = "poolkit-cache 1.2.0, wrapped around task 'embed' of poolkit 0.1.0, failed in post_process."
    with pytest.raises(HookError) as caught:
        post_process(operation)
    assert str(caught.value) == message
    assert (caught.value.plugin, caught.value.task, caught.value.hook) == ("poolkit-cache", "embed", "post_process")
    assert repr(caught.value.__cause__) == repr(cause)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, message)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (
            "return Prepared(prepared.prompts)",
            "lost Prepared.state, which is the processor's. Return dataclasses.replace(prepared, …)",
        ),
        (
            "return replace(prepared, state=[prepared.state])",
            "lost Prepared.state, which is the processor's. Return dataclasses.replace(prepared, …)",
        ),
        (
            "return replace(prepared, prompts=[*prepared.prompts, 'b'])",
            "returned 2 prompts for 1. Prompts are added and left out in run",
        ),
    ],
)
def test_a_wrapper_that_hands_on_what_the_processor_cannot_answer_is_blamed(
    wrap: Callable[..., BoundOperation], site: Site, body: str, cause: str
):
    modules = {"poolkit_stateful": STATEFUL}
    site.install("poolkit-stateful", modules=modules, tasks={"stateful": "poolkit_stateful:STATEFUL"})
    quiet = "    @around\n    def pre_process(self): return (yield)\n"
    losing = f"    @around\n    def pre_process(self):\n        prepared = yield\n        {body}\n"
    operation = wrap(task="stateful", quiet=quiet, cache=losing)
    with pytest.raises(HookError) as caught:
        operation.pre_process(Request(texts=["a"]))
    assert str(caught.value) == (
        "poolkit-cache 1.2.0, wrapped around task 'stateful' of poolkit-stateful 1.0.0, failed in pre_process."
    )
    assert repr(caught.value.__cause__) == repr(TypeError(cause))


def test_a_wrapper_cannot_make_prompts_for_a_processor_that_failed(wrap):
    body = """
    @around
    def pre_process(self, request):
        try:
            return (yield)
        except HookError:
            return Prepared(["a"])
"""
    failing = "    @around\n    def pre_process(self):\n        yield\n        raise OSError\n"
    with pytest.raises(HookError) as caught:
        wrap(patient=body, failing=failing).pre_process(Request(texts=["a"]))
    assert caught.value.plugin == "poolkit-patient"
    assert repr(caught.value.__cause__) == repr(TypeError("returned prompts although what it surrounds failed"))


def test_the_task_is_blamed_for_its_own_failure_however_it_is_wrapped(wrap, caplog: pytest.LogCaptureFixture):
    quiet = "    @around\n    def post_process(self): return (yield)\n"
    with pytest.raises(HookError) as caught:
        wrap(quiet=quiet).post_process(Prepared([]), [None])
    assert str(caught.value) == "task 'embed' of poolkit 0.1.0 failed in post_process."
    assert caplog.messages == ["task 'embed' of poolkit 0.1.0 failed in post_process."]


def test_closing_a_task_closes_its_wrappers(wrap, caplog: pytest.LogCaptureFixture):
    body = "    @around\n    def pre_process(self): return (yield)\n"
    body += "    def close(self): events.append('closed'); raise OSError\n"
    operation = wrap(cache=body, quiet=TELLING)
    operation.close()
    assert sys.modules["poolkit_cache"].events == ["closed"]
    assert caplog.messages == ["Wrapper of poolkit-cache 1.2.0 failed in close."]


def test_the_time_of_each_hook_is_told_for_each_plugin(wrap):
    operation = wrap(quiet="    @around\n    def pre_process(self): return (yield)\n")
    seen: list[tuple[str, str, float]] = []
    operation.observe(lambda *call: seen.append(call))
    operation.pre_process(Request(texts=["a"]))
    post_process(operation)
    assert [call[:2] for call in seen] == [
        ("pre_process", "poolkit"),
        ("pre_process", "poolkit-quiet"),
        ("post_process", "poolkit"),
    ]
    assert all(seconds > 0 for _, _, seconds in seen)
