"""Bugs that authors of plugins make, each planted in a sound plugin, and what the kit says of it."""

import pytest

from poolkit.testing import Verdict, check_plugin

PRE = "return Prepared(request.texts, state=request.note)"
POST = "return Response(sums=[float(output.data.sum()) for output in outputs], note=prepared.state)"
METHODS = "    def pre_process(self, request):\n"
ALONE = "sound/sum, example 0: 'sums' of 5 items of 'texts' is not what each of them gets alone."

PER_PROMPT = 'name="sum",\n            per_prompt=("sums",),'

INIT = """
    def __init__(self, context):
        super().__init__(context)
        {}

"""


def breaches():
    """Return what failed or was warned of."""
    results = check_plugin("poolkit-sound")
    return {result.name: result.message for result in results if result.verdict not in ("passed", "skipped")}


def with_init(line):
    """Return the change that makes the processor do something when it is created."""
    return {METHODS: INIT.format(line) + METHODS}


def test_duplicates_that_are_dropped(install):
    install({PRE: f"request = request.model_copy(update={{'texts': list(dict.fromkeys(request.texts))}}); {PRE}"})
    assert breaches() == {
        "duplicates_keep_their_place": "sound/sum, example 0 with 5 items in 'texts', some of them twice: 'sums' has "
        "2 items."
    }


def test_duplicates_that_are_answered_in_a_wrong_place(install):
    install(
        {
            PRE: "return Prepared(list(dict.fromkeys(request.texts)), state=request)",
            POST: "sums = [float(output.data.sum()) for output in outputs]\n"
            "        texts = prepared.state.texts\n"
            "        return Response(sums=(sums * len(texts))[:len(texts)], note=prepared.state.note)",
        }
    )
    assert breaches() == {
        "duplicates_keep_their_place": "sound/sum, example 0 with 5 items in 'texts', some of them twice: 'sums' does "
        "not give each what it gets in other company."
    }


def test_blanks_that_are_dropped(install):
    install({PRE: "return Prepared([text for text in request.texts if text.strip()], state=request.note)"})
    assert breaches() == {
        "blanks_keep_their_place": "sound/sum, example 0 with 5 items in 'texts', two of them blank: 'sums' has 3 "
        "items."
    }


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("[text.encode('latin-1') for text in request.texts]", "UnicodeEncodeError: 'latin-1' codec can't encode"),
        ("[ord(letter) < 65536 or 1 / 0 for text in request.texts for letter in text]", "ZeroDivisionError: division"),
    ],
)
def test_a_crash_on_letters_of_other_scripts(install, line, error):
    install({PRE: f"{line}; {PRE}"})
    found = breaches()
    assert found.keys() == {"bad_input_is_refused"}
    assert error in found["bad_input_is_refused"]


def test_a_crash_on_the_letters_of_one_script(install):
    install({PRE: f"[1 / ('\\u0300' > letter or letter > '\\u036f') for t in request.texts for letter in t]; {PRE}"})
    failed = (
        "HookError: task 'sound' of poolkit-sound 1.0.0 failed in pre_process. Caused by ZeroDivisionError: division "
        "by zero"
    )
    assert breaches() == {
        "any_script_is_answered": f"sound/sum, example 0 with combining accents in texts[0]: {failed}\n"
        f"sound/sum, example 0 with combining accents in texts[1]: {failed}"
    }


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_json_has_no_word_for(install, number):
    install({"float(output.data.sum())": f"float('{number}')"})
    assert breaches() == {
        "examples_are_answered": "sound/sum, example 0: HookError: task 'sound' of poolkit-sound 1.0.0 failed in "
        "post_process. Caused by ValueError: returned a response whose sums[0] is not finite"
    }


def test_a_number_that_is_infinite_where_the_model_answers_zero(install):
    install({"float(output.data.sum())": "float((output.data / abs(output.data).max()).sum())"})
    found = breaches()
    assert found.keys() == {"zeros_are_answered"}
    assert found["zeros_are_answered"].startswith("sound/sum, example 0, where all outputs are zero: HookError: ")


KEPT = """
    def pre_process(self, request):
        self.sums = getattr(self, 'sums', {})
        return Prepared(request.texts, state=request)

    def post_process(self, prepared, outputs):
        key = tuple(map(len, prepared.prompts))
        sums = self.sums.setdefault(key, [float(output.data.sum()) for output in outputs])
        return Response(sums=sums, note=prepared.state.note)
"""


BOTH = f"{METHODS}        {PRE}\n\n    def post_process(self, prepared, outputs):\n        {POST}\n"


@pytest.mark.parametrize("where", ["self", "Processor"])
def test_a_cache_whose_key_is_the_length(install, where):
    install({BOTH: KEPT.replace("self.sums = getattr(self", f"{where}.sums = getattr({where}")})
    found = breaches()
    assert "answers_are_the_same_elsewhere" in found
    assert found["answers_are_the_same_elsewhere"] == (
        "sound/sum, example 0: another process that was asked before in another order gives another answer. What a "
        "processor keeps must be found again by all that it depends on, and the order of a set is not one."
    )


def test_an_order_that_is_that_of_a_set(install):
    install({"note=prepared.state": "note=' '.join(set(prepared.state + c for c in 'abcdefgh'))"})
    assert breaches().keys() == {"answers_are_the_same_elsewhere"}


def test_an_error_that_is_swallowed_in_post_process(install):
    install(
        {POST: f"try:\n            {POST}\n        except Exception:\n            return Response(sums=[], note='')"}
    )
    assert breaches() == {
        "failures_are_told": "sound/sum, example 0: reading data of an output fails in post_process, and the request "
        "is answered as if it had not. Catch the exceptions that you expect alone."
    }


def test_an_error_that_is_swallowed_in_pre_process(install):
    install({PRE: f"try:\n            {PRE}\n        except Exception:\n            return Prepared([], state='')"})
    assert breaches() == {
        "failures_are_told": "sound/sum, example 0: reading texts of the request fails in pre_process, and the request "
        "is answered as if it had not. Catch the exceptions that you expect alone."
    }


def test_an_error_that_is_blamed_on_the_caller(install):
    wrong = "from poolkit.errors import RequestError\n            raise RequestError('It is your fault.') from None"
    install({POST: f"try:\n            {POST}\n        except Exception:\n            {wrong}"})
    assert breaches() == {
        "failures_are_told": "sound/sum, example 0: reading data of an output fails in post_process, and the caller is "
        "blamed: RequestError: It is your fault."
    }


@pytest.mark.parametrize(
    "line",
    ["self.seen.append(request)", "self.seen.append(request.texts)", "self.seen.append(f'{id(request)} {request}')"],
)
def test_memory_that_grows_with_every_request(install, line):
    install(with_init("self.seen = []") | {PRE: f"{line}; {PRE}"})
    found = breaches()
    assert found.keys() == {"memory_is_given_back"}
    assert found["memory_is_given_back"].startswith(
        "sound/sum, example 0: each time it is asked, memory is left behind"
    )


def test_memory_that_grows_with_every_other_text(install):
    install(with_init("self.seen = {}") | {PRE: f"self.seen[' '.join(request.texts)] = {{}}; {PRE}"})
    assert breaches() == {
        "caches_are_bounded": "sound/sum, example 0: 750 different requests later each one still leaves memory behind "
        "in poolkit_sound.py, line 34. If nothing bounds what keeps them, give it a bound."
    }


def test_a_cache_with_a_bound_is_fine(install):
    keep = "self.seen[' '.join(request.texts)] = {}; len(self.seen) > 50 and self.seen.pop(next(iter(self.seen)))"
    install(with_init("self.seen = {}") | {PRE: f"{keep}; {PRE}"})
    assert breaches() == {}


def test_a_thread_that_is_left_running(install):
    start = "import threading; threading.Thread(target=self.watch, name='watch', daemon=True).start()"
    watch = "    def watch(self):\n        import threading; threading.Event().wait()\n\n"
    changes = with_init(start)
    install({METHODS: watch + changes[METHODS]})
    found = breaches()
    assert found.keys() == {"nothing_is_left_open"}
    assert found["nothing_is_left_open"].splitlines()[0] == (
        "the thread 'watch' still runs in Processor.watch (poolkit_sound.py, line 29). End it in close()."
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [("import socket; kept = socket.socket()", "socket:"), ("kept = open(__file__)", "poolkit_sound.py")],
)
def test_a_file_or_socket_that_is_left_open(install, line, told):
    install(with_init(f"{line}; Processor.kept = [*getattr(Processor, 'kept', ()), kept]"))
    found = breaches()
    assert found.keys() == {"nothing_is_left_open"}
    assert told in found["nothing_is_left_open"]
    assert found["nothing_is_left_open"].splitlines()[0].endswith(" is still open. Close it in close().")


def test_a_close_that_raises(install):
    install({METHODS: f"    def close(self):\n        raise OSError('no such pool')\n\n{METHODS}"})
    found = breaches()
    assert found == {"close_is_clean": "Task 'sound' of poolkit-sound 1.0.0 failed in close. OSError: no such pool"}


@pytest.mark.parametrize(
    "line",
    [
        "import logging; logging.getLogger('sound').info('%s', request.texts)",
        "import logging; logging.getLogger('sound').debug(f'asked {request}')",
        "print(*request.texts)",
        "import sys; sys.stderr.write(' '.join(request.texts))",
    ],
)
def test_a_text_in_the_log(install, line):
    install({PRE: f"{line}; {PRE}"})
    found = breaches()
    assert found.keys() == {"log_is_discreet"}
    assert found["log_is_discreet"].startswith("sound/sum, example 0: a text of the request gets into the log: ")


@pytest.mark.parametrize(("old", "hook", "line"), [(PRE, "pre_process", 29), (POST, "post_process", 32)])
def test_a_hook_that_sleeps(install, old, hook, line):
    install({old: f"import time; time.sleep(1.5); {old}"})
    found = breaches()
    assert found.keys() == {"hooks_are_quick"}
    assert found["hooks_are_quick"].startswith("sound/sum, example 0 takes ")
    assert found["hooks_are_quick"].endswith(f" After 1 s it was in Processor.{hook} (poolkit_sound.py, line {line}).")


def test_a_batch_whose_items_weigh_on_each_other_wherever_the_list_stands(install):
    """The list is a field of another model, and the answers have indices and are sorted."""
    install(
        {
            "class Request": "class Queries(BaseModel):\n    texts: list[str]\n\n\nclass Request",
            "    texts: list[str]\n    note": "    queries: Queries\n    note",
            '{"texts": ["a cat", "a dog"], "note": "why"}': '{"queries": {"texts": ["a cat"]}, "note": "why"}',
            "sums: list[float]": "sums: list[dict[str, object]]",
            PRE: PRE.replace("request.texts", "request.queries.texts"),
            POST: "sums = [{'index': i, 'sum': float(o.data.sum()) / len(outputs)} for i, o in enumerate(outputs)]\n"
            "        return Response(sums=sorted(sums, key=lambda found: found['sum']), note=prepared.state)",
        }
    )
    assert breaches() == {"batch_equals_singles": ALONE.replace("'texts'", "'queries.texts'")}


def test_labels_that_are_ranked_against_each_other_are_fine(install):
    """A softmax over the caller's labels: each depends on the others, and the answer says which is whose."""
    install(
        {
            "sums: list[float]": "sums: list[float]\n    labels: list[str]",
            POST: "import numpy as np\n"
            "        exp = np.exp([output.data.sum() for output in outputs])\n"
            "        order = np.argsort(-exp)\n"
            "        sums = (exp / exp.sum())[order].tolist() if len(exp) else []\n"
            "        labels = [prepared.prompts[i] for i in order]\n"
            "        return Response(sums=sums, labels=labels, note=prepared.state)",
        }
    )
    results = {result.name: result for result in check_plugin("poolkit-sound")}
    assert {result.verdict for result in results.values()} == {Verdict.PASSED, Verdict.SKIPPED}
    assert results["batch_equals_singles"].message == "the items of every list of texts are weighed together"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"    def pre_process": "    async def pre_process"}, "hooks_bind"),
        ({POST: "return [output.data.sum() for output in outputs]"}, "examples_are_answered"),
        ({POST: POST.replace("in outputs]", "in outputs[1:]]"), 'name="sum",': PER_PROMPT}, "examples_are_answered"),
        ({PRE: PRE.replace("request.texts", "iter(request.texts)")}, "examples_are_answered"),
        ({"note=prepared.state": "note=str(__import__('time').time_ns())"}, "answers_are_deterministic"),
        ({"note=prepared.state": "note=str(__import__('random').random())"}, "answers_are_deterministic"),
        ({PRE: f"request.texts.append('more'); {PRE}"}, "input_is_not_mutated"),
        ({PRE: f"globals()['last'] = request; {PRE}", "note=prepared.state": "note=last.note"}, "requests_keep_apart"),
        ({PRE: f"{{'why': 1, 'none': 2}}[request.note]; {PRE}"}, "bad_input_is_refused"),
        ({PRE: f"max(text.split()[0] for text in request.texts); {PRE}"}, "bad_input_is_refused"),
        ({PRE: f"min(request.texts, key=len); {PRE}"}, "empty_batch_is_clear"),
    ],
    ids=[
        "async",
        "a list",
        "one too few",
        "an iterator",
        "the clock",
        "chance",
        "a longer request",
        "state of the module",
        "an unknown value",
        "a blank",
        "an empty list",
    ],
)
def test_a_bug_is_found_by_the_check_that_is_about_it(install, changes, check):
    install(changes)
    assert check in breaches()
