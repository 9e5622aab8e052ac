"""Bugs that authors of wrappers make, each planted in a sound one, and whose fault the kit says it is."""

import pytest

from poolkit.testing import check_plugin
from sound_plugin import SOUND, SOUND_WRAPPER

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

WRAPPER = "import dataclasses\nimport random\nimport threading\nimport time\n" + SOUND_WRAPPER.replace(
    "return [Wrapper(settings)]", 'return [Wrapper(settings)] if context.task.name == "embed" else []'
).replace("self.suffix = settings.suffix", "self.lock = threading.Lock()")

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
        f"there is no answer after {LIMIT_S:g} s. It hangs in Wrapper.pre_process (poolkit_wrap_it.py, line 23)."
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
    assert found["hooks_are_quick"].endswith("After 1 s it was in Wrapper.pre_process (poolkit_wrap_it.py, line 23).")


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


RUN = """
    def run(self, encoded):
        outcomes = yield encoded
        return outcomes

    @hookimpl(wrapper=True)
    def pre_process"""
PRE_NAME = "\n    @hookimpl(wrapper=True)\n    def pre_process"
YIELD = "outcomes = yield encoded"
RETURN = "return outcomes"


@pytest.fixture
def breaches_of_run(breaches):
    """Return a function that plants bugs in a wrapper around the model, and returns what failed or was warned of."""

    def breaches_of_run(changes, **options):
        source = RUN
        for old, new in changes.items():
            assert old in source
            source = source.replace(old, new)
        return breaches({PRE_NAME: source}, **options)

    return breaches_of_run


def test_a_sound_wrapper_around_the_model(breaches_of_run):
    assert breaches_of_run({}) == {}


def test_failures_of_the_model_that_are_swallowed(breaches_of_run):
    empty = "PooledOutput(numpy.zeros(8, numpy.float32), prompt.token_ids)"
    swallow = f"[{empty} if isinstance(o, Exception) else o for prompt, o in zip(encoded, outcomes)]"
    found = breaches_of_run({RETURN: f"import numpy; from poolkit import PooledOutput\n        return {swallow}"})
    assert found == {
        "engine_failures_are_told": "embed/sum, example 0: the model fails, and the request is answered as if it had "
        "not. Catch the exceptions that you expect alone."
    }


def test_an_outcome_that_is_dropped(breaches_of_run):
    found = breaches_of_run({RETURN: "return outcomes[1:]"})
    assert found.keys() == {"examples_are_answered"}
    assert (
        "poolkit-wrap 1.0.0, wrapped around task 'embed' of poolkit 0.1.0, failed in run"
        in (found["examples_are_answered"])
    )


def test_outcomes_in_a_wrong_order(breaches_of_run):
    found = breaches_of_run({RETURN: "return outcomes[::-1]"})
    assert found.keys() == {"batch_equals_singles"}


def test_outcomes_that_are_kept_by_length(breaches_of_run):
    keep = "return [self.kept.setdefault(len(prompt.token_ids), outcome) for prompt, outcome in zip(encoded, outcomes)]"
    found = breaches_of_run({"def run": "kept = {}\n\n    def run", RETURN: keep})
    assert "answers_are_the_same_elsewhere" in found


def test_outcomes_that_are_changed(breaches_of_run):
    found = breaches_of_run({RETURN: f"outcomes[0].data.sort()\n        {RETURN}"})
    assert found == {
        "input_is_not_mutated": "embed/sum, example 0: an array of its outputs is changed. Work on a copy."
    }


SPLIT = (
    "embed/sum, example 0 with its prompts in a group: HookError: poolkit-wrap 1.0.0, wrapped around task 'embed' of "
    "poolkit 0.1.0, failed in run. Caused by TypeError: yielded {} prompts of a group of {}. A group runs as a whole, "
    "or not at all"
)


def test_equal_prompts_of_a_group_that_run_once(breaches_of_run):
    keys = "keys = [(prompt.token_ids.tobytes(), prompt.params) for prompt in encoded]"
    once = f"{keys}\n        outcomes = yield list(dict(zip(keys, encoded)).values())"
    each = "found = dict(zip(dict.fromkeys(keys), outcomes))\n        return [found[key] for key in keys]"
    assert breaches_of_run({YIELD: once, RETURN: each}) == {"groups_stay_together": SPLIT.format(2, 4)}


def test_prompts_of_a_group_that_have_run_before(breaches_of_run):
    keys = "keys = [prompt.token_ids.tobytes() for prompt in encoded]"
    before = "before = self.kept  # whatever another request keeps meanwhile"
    new = "new = [place for place, key in enumerate(keys) if key not in before]"
    run = f"{keys}\n        {before}\n        {new}\n        outcomes = yield [encoded[place] for place in new]"
    known = "known = {**before, **{keys[place]: outcome for place, outcome in zip(new, outcomes)}}"
    keep = "self.kept = dict(list(known.items())[-8:])\n        return [known[key] for key in keys]"
    found = breaches_of_run({"def run": "kept = {}\n\n    def run", YIELD: run, RETURN: f"{known}\n        {keep}"})
    assert found == {"groups_stay_together": SPLIT.format(3, 5)}


def test_prompts_that_lose_their_group(breaches_of_run):
    found = breaches_of_run({YIELD: "outcomes = yield [dataclasses.replace(prompt, group=None) for prompt in encoded]"})
    assert found == {
        "groups_stay_together": "embed/sum, example 0 with its prompts in a group: a wrapper takes prompts out of it. "
        "Give what runs in place of a prompt the group of that prompt."
    }


def test_prompts_on_the_wrapper(breaches_of_run):
    keep = "self.prompts = encoded\n        outcomes = yield encoded"
    use = "return [outcomes[place] for place in range(len(self.prompts))]"
    found = breaches_of_run({YIELD: keep, RETURN: use})
    assert found.keys() == {"requests_keep_apart"}


def test_a_lock_that_is_held_while_the_model_runs(breaches_of_run):
    found = breaches_of_run(
        {YIELD: "self.lock.acquire()\n        outcomes = yield encoded\n        self.lock.release()"}, limit_s=LIMIT_S
    )
    assert found == {
        "requests_keep_apart": f"there is no answer after {LIMIT_S:g} s. It hangs in Wrapper.run (poolkit_wrap_it.py, "
        "line 22)."
    }
