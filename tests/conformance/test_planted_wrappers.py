"""Bugs that authors of wrappers make, each planted in a sound one, and whose fault the kit says it is."""

import pytest

from conftest import SOUND
from poolkit.testing import check_plugin

CORE = (
    SOUND.replace("poolkit_sound:", "fake_core:")
    + """
import dataclasses

EMBED, TOKEN_EMBED, CLASSIFY, REWARD, TOKEN_CLASSIFY = (
    dataclasses.replace(SOUND, name=name, operations=(dataclasses.replace(SOUND.operations[0], routes=()),))
    for name in ("embed", "token_embed", "classify", "reward", "token_classify")
)
"""
)

WRAPPER = """
import dataclasses
import random
import threading
import time

from poolkit import hookimpl


class Wrapper:
    def __init__(self):
        self.lock = threading.Lock()

    @hookimpl(wrapper=True)
    def pre_process(self, request):
        prepared = yield
        return prepared

    @hookimpl(wrapper=True)
    def post_process(self, prepared, outputs):
        response = yield
        return response


@hookimpl
def poolkit_wrap(context, settings):
    return [Wrapper()] if context.task.name == "embed" else []
"""

PRE = "prepared = yield\n        return prepared"
POST = "response = yield\n        return response"
REPLACE = "dataclasses.replace(prepared, "
FAILED = "HookError: poolkit-wrap 1.0.0, wrapped around task 'embed' of poolkit 0.1.0, failed in"
LIMIT_S = 6.0


@pytest.fixture
def breaches(site):
    """Return a function that plants bugs in a wrapper and returns what failed or was warned of."""

    def breaches(changes, **options):
        source = WRAPPER
        for old, new in changes.items():
            assert old in source
            source = source.replace(old, new)
        (site.path / "fake_core.py").write_text(CORE)
        site.install(
            "poolkit-wrap",
            modules={"poolkit_wrap_it": source},
            hooks={"wrap": "poolkit_wrap_it"},
            requires=["poolkit>=0.1,<0.2"],
        )
        results = check_plugin("poolkit-wrap", **options)
        return {result.name: result.message for result in results if result.verdict in ("failed", "warned")}

    return breaches


def test_a_sound_wrapper(breaches):
    assert breaches({}) == {}


def test_state_on_the_wrapper(breaches):
    """The requests in flight have equally long texts; how many texts they have differs."""
    keep = "prepared = yield\n        self.count = len(prepared.prompts)\n        return prepared"
    use = "response = yield\n        return response.model_copy(update={'note': str(self.count)})"
    found = breaches({PRE: keep, POST: use})
    assert found.keys() == {"requests_keep_apart"}
    assert found["requests_keep_apart"].endswith(
        "requests at a time get another answer than alone. What belongs to a request goes into Prepared.state, not on "
        "the processor."
    )


def test_every_exception_swallowed(breaches):
    swallow = (
        "try:\n            response = yield\n        except Exception:\n            from fake_core import Response\n"
        "            return Response(sums=[], note='')\n        return response"
    )
    assert breaches({POST: swallow}) == {
        "failures_are_told": "embed/sum, example 0: reading data of an output fails in post_process, and the request "
        "is answered as if it had not. Catch the exceptions that you expect alone."
    }


def test_a_lock_that_is_held_until_the_answer(breaches):
    found = breaches(
        {PRE: f"self.lock.acquire()\n        {PRE}", POST: f"self.lock.release()\n        {POST}"}, limit_s=LIMIT_S
    )
    assert found.keys() == {"order_is_kept"}
    assert found["order_is_kept"] == (
        f"there is no answer after {LIMIT_S:g} s. It hangs in Wrapper.pre_process (poolkit_wrap_it.py, line 16)."
    )


def test_a_state_that_is_lost(breaches):
    """The processor can only find that it is None, but is not to blame."""
    found = breaches({PRE: PRE.replace("return prepared", f"return {REPLACE}state=None)")})
    assert found.keys() == {"examples_are_answered"}
    assert found["examples_are_answered"].endswith(" Without poolkit-wrap it is answered.")


def test_an_output_that_is_dropped(breaches):
    found = breaches({POST: POST.replace("yield", "yield (prepared, outputs[1:])")})
    assert found.keys() == {"examples_are_answered"}
    assert f"{FAILED} post_process" in found["examples_are_answered"]


def test_prompts_that_are_sorted(breaches):
    found = breaches({PRE: PRE.replace("return prepared", f"return {REPLACE}prompts=sorted(prepared.prompts))")})
    assert "order_is_kept" in found
    assert "duplicates_keep_their_place" not in found


def test_an_output_that_is_changed(breaches):
    found = breaches({POST: "outputs[0].data.sort() if outputs else None\n        " + POST})
    assert found == {
        "input_is_not_mutated": "embed/sum, example 0: an array of its outputs is changed. Work on a copy."
    }


def test_a_response_that_is_none(breaches):
    found = breaches({POST: POST.replace("return response", "return None")})
    assert found.keys() == {"examples_are_answered"}
    assert f"{FAILED} post_process" in found["examples_are_answered"]


def test_a_wrapper_that_sleeps(breaches):
    found = breaches({PRE: f"time.sleep(1.5)\n        {PRE}"})
    assert found.keys() == {"hooks_are_quick"}
    assert found["hooks_are_quick"].endswith("After 1 s it was in Wrapper.pre_process (poolkit_wrap_it.py, line 16).")


def test_a_wrapper_that_draws_lots(breaches):
    found = breaches(
        {POST: POST.replace("return response", "return response.model_copy(update={'note': str(random.random())})")}
    )
    assert "answers_are_deterministic" in found


def test_a_wrapper_that_leaves_requests_behind(breaches):
    keep = f"self.seen = [*getattr(self, 'seen', ()), request]\n        {PRE}"
    found = breaches({PRE: keep})
    assert found.keys() == {"memory_is_given_back"}


def test_a_close_that_raises(breaches):
    methods = "    @hookimpl(wrapper=True)\n    def pre"
    found = breaches({methods: f"    def close(self):\n        1 / 0\n\n{methods}"})
    assert found == {
        "close_is_clean": "Wrapper of poolkit-wrap 1.0.0 failed in close. ZeroDivisionError: division by zero"
    }
