"""Each check can fail: a plugin that breaks one rule, and what it is told; of any other rule nothing is said."""

import json

import pytest

from poolkit.testing import Verdict, check_plugin

POST = "return Response(sums=[float(output.data.sum()) for output in outputs], note=prepared.state)"
PRE = "return Prepared(request.texts, state=request.note)"
EXAMPLES = '"examples": [{"texts": ["a cat", "a dog"], "note": "why"}]'
WHOLE_EXAMPLES = '{"examples": [{"texts": ["a cat", "a dog"], "note": "why"}]}'
TOP = "\nfrom pydantic import"


def breaches(name="poolkit-sound"):
    """Return what failed or was warned of."""
    results = check_plugin(name)
    return {result.name: result.message for result in results if result.verdict not in ("passed", "skipped")}


def failures():
    return {result.name: result.message for result in check_plugin("poolkit-sound") if result.verdict == "failed"}


def test_the_sound_plugin_passes_every_check(install):
    install()
    skipped = {result.message for result in check_plugin("poolkit-sound") if result.verdict is not Verdict.PASSED}
    assert skipped == {"the plugin has no engines", "no wrapper of the plugin surrounds the model"}


def test_import_is_survived(install):
    install({TOP: "\nimport os; os._exit(3)" + TOP})
    assert breaches() == {"import_is_survived": "a fresh interpreter ended with exit code 3."}


def test_entry_points_resolve(install):
    install(tasks={"sound": "poolkit_sound:NOTHING", "noise": "poolkit_sound:Settings"})
    assert breaches() == {
        "entry_points_resolve": "noise = poolkit_sound:Settings is of type ModelMetaclass. "
        "Group poolkit.tasks takes a PoolingTask, Renamed or Removed.\n"
        "sound = poolkit_sound:NOTHING cannot be imported: "
        "AttributeError: module 'poolkit_sound' has no attribute 'NOTHING'"
    }


def test_a_fake_is_a_fake(install):
    install(fakes="poolkit_sound:Settings")
    assert breaches() == {
        "entry_points_resolve": "the entry point 'sound' of group poolkit.fakes cannot be used: PluginInvalidError: "
        "poolkit-sound: entry point 'sound' of group poolkit.fakes points to an object of type ModelMetaclass, "
        "not to a poolkit.testing.Fake."
    }


def test_names_match(install):
    install(tasks={"noise": "poolkit_sound:SOUND"})
    assert breaches() == {"names_match": "entry point 'noise' points to a task named 'sound'. Give them one name."}


def test_api_is_supported(install):
    install({"api=1": "api=7"})
    assert breaches() == {"api_is_supported": "task 'sound' has api=7; poolkit supports 1 to 1."}


@pytest.mark.parametrize(
    ("requires", "shown"), [(("poolkit>=0.1",), "poolkit>=0.1"), (("numpy<3",), "no poolkit at all")]
)
def test_requirement_is_bounded(install, requires, shown):
    install(requires=requires)
    assert breaches() == {
        "requirement_is_bounded": f'it requires {shown}. Give an upper bound:  dependencies = ["poolkit>=0.1,<0.2"].'
    }


def test_settings_forbid_extras(install):
    install({'ConfigDict(extra="forbid", frozen=True)': "ConfigDict(frozen=True)"})
    assert breaches() == {
        "settings_forbid_extras": 'Settings accepts unknown keys. Give it  model_config = ConfigDict(extra="forbid").'
    }


def test_settings_can_be_given(install):
    install({"scale: float = 1.0": "scale: float"})
    assert breaches() == {
        "settings_can_be_given": "Settings without an example that says more is refused: scale: Field required."
    }


def test_settings_without_defaults_take_their_example(install):
    install({"scale: float = 1.0": "scale: float", "frozen=True)": 'json_schema_extra={"examples": [{"scale": 2}]})'})
    assert breaches() == {}


def test_plugin_loads(install):
    install({'"/sound/sum"': '"sound/sum"'})
    assert failures() == {
        "plugin_loads": "poolkit-sound 1.0.0: operation 'sum' of task 'sound' has routes=('sound/sum',). "
        "Give a tuple of paths, each with a slash in front."
    }


def test_hooks_bind(install):
    install({"pre_process(self, request)": "pre_process(self, request, ctx)"})
    assert breaches() == {
        "hooks_bind": "poolkit-sound 1.0.0: Processor.pre_process takes 'ctx'; the hook provides (request)."
    }


def test_import_is_light(install):
    install({TOP: "\nimport uvicorn\nfrom pydantic import"})
    assert breaches() == {"import_is_light": "it imports uvicorn. Import that where it is used, in a function."}


@pytest.mark.parametrize(
    "loud",
    [
        {
            "print('hello')": "prints 'hello\\n'",
            "import sys; sys.path.append('/sound')": "changes sys.path",
            "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()": (
                "changes the running threads"
            ),
            "import os; os.environ['SOUND'] = '1'": "changes the environment",
            "os.chdir('/')": "changes the working directory",
            "open(os.devnull, 'w').close()": "writes the file '/dev/null'",
            "os.system('true')": "starts a process: b'true'",
        },
        {
            "import sys; sys.stderr.write('oh')": "prints 'oh'",
            "import logging; logging.basicConfig()": "changes the root logger",
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)": "changes the signal handlers",
            "import random; random.seed(0)": "changes random's state",
            "import numpy; numpy.random.seed(0)": "changes numpy's random state",
            "numpy.seterr(all='raise')": "changes numpy's error handling",
            "sys.excepthook = print": "changes sys.excepthook",
        },
    ],
    ids=["process", "state"],
)
def test_import_is_quiet(install, poolkit, loud):
    """From the command line, whose process is not that of the tests."""
    install({TOP: "\n" + "\n".join(loud) + TOP})
    code, out, _ = poolkit("plugins", "check", "poolkit-sound", "--json")
    [found] = [result for result in json.loads(out) if result["verdict"] not in ("passed", "skipped")]
    assert (code, found["name"], found["verdict"]) == (1, "import_is_quiet", "failed")
    assert set(found["message"].splitlines()) == {f"importing it {effect}." for effect in loud.values()}


def test_descriptors_pickle(install):
    requires = """
class Requires:
    def __call__(self, model):
        return None

    def __reduce__(self):
        raise LookupError("no way to write it")
"""
    install({TOP: requires + TOP, "settings=Settings,": "settings=Settings, requires=Requires(),"})
    assert breaches() == {"descriptors_pickle": "task 'sound' cannot be pickled: LookupError: no way to write it."}


def test_descriptors_unpickle_elsewhere(install):
    install(
        {
            TOP: """
import os
HOME = os.getpid()

def read(pid):
    if pid != HOME:
        raise LookupError("made in another process")

class Requires:
    def __call__(self, model):
        return None

    def __reduce__(self):
        return read, (HOME,)
"""
            + TOP,
            "settings=Settings,": "settings=Settings, requires=Requires(),",
        }
    )
    assert breaches() == {
        "descriptors_pickle": "task 'sound' cannot be unpickled in another process: "
        "LookupError: made in another process."
    }


def test_descriptors_stay_what_they_are(install):
    requires = "\nclass Requires:\n    def __call__(self, model):\n        return None\n"
    install({TOP: requires + TOP, "settings=Settings,": "settings=Settings, requires=Requires(),"})
    assert breaches() == {"descriptors_pickle": "task 'sound' comes out of another process as something else."}


def test_schemas_are_json(install):
    install({WHOLE_EXAMPLES: WHOLE_EXAMPLES.replace("}]}", '}], "x": {1}}')})
    assert breaches() == {
        "schemas_are_json": "Request has no schema in JSON: TypeError: Object of type set is not JSON serializable"
    }


def test_examples_validate(install):
    install({EXAMPLES: '"examples": [{"texts": 3}, {"texts": ["a"]}]'})
    assert breaches() == {"examples_validate": "example 0 of Request is refused: texts: Input should be a valid list."}


def test_a_request_has_an_example(install):
    install({EXAMPLES: ""})
    assert breaches() == {
        "examples_validate": "Request, the request of 'sum' of task 'sound', has no example. Give it  "
        'model_config = ConfigDict(json_schema_extra={"examples": [{...}]}).'
    }


def test_heads_have_fakes(install):
    install({"settings=Settings,": "settings=Settings, head='poolkit_sound:head',"})
    assert breaches() == {
        "heads_have_fakes": "the head 'poolkit_sound:head' of task 'sound' cannot be run without weights. Name a "
        "poolkit.testing.Fake with a draw in an entry point 'sound' of group poolkit.fakes."
    }


def test_examples_are_answered(install):
    install({POST: 'raise LookupError("no sums today")'})
    assert breaches() == {
        "examples_are_answered": "sound/sum, example 0: HookError: task 'sound' of poolkit-sound 1.0.0 failed in "
        "post_process. Caused by LookupError: no sums today"
    }


def test_an_answer_can_be_written_as_json(install):
    install({"note: str\n\n\nclass": "note: object\n\n\nclass", "note=prepared.state": "note=print"})
    assert breaches() == {
        "examples_are_answered": "sound/sum, example 0: TypeError: Type is not JSON serializable: "
        "builtin_function_or_method Caused by TypeError: builtin_function_or_method cannot be written as JSON"
    }


def test_order_is_kept(install):
    """Whoever sorts the answers gives an item of a batch another answer than alone, too."""
    install({POST: POST.replace("[float", "sorted([float").replace("outputs],", "outputs]),")})
    assert breaches() == {
        "order_is_kept": "sound/sum, example 0: 'sums' is not in the order of 'texts'.",
        "batch_equals_singles": "sound/sum, example 0: 'sums' of 5 items of 'texts' is not what each of them gets "
        "alone.",
    }


def test_batch_equals_singles(install):
    install({"output.data.sum()": "output.data.sum() / len(outputs)"})
    assert breaches() == {
        "batch_equals_singles": "sound/sum, example 0: 'sums' of 5 items of 'texts' is not what each of them gets "
        "alone."
    }


def test_empty_batch_is_clear(install):
    install({POST: f"1 / len(outputs); {POST}"})
    assert breaches() == {
        "empty_batch_is_clear": "sound/sum, example 0 with an empty 'texts': HookError: task 'sound' of "
        "poolkit-sound 1.0.0 failed in post_process. Caused by ZeroDivisionError: division by zero"
    }


def test_an_empty_batch_is_refused_with_a_reason(install):
    refusal = "from poolkit.errors import RequestError\n        if not request.texts: raise RequestError('')\n        "
    install({PRE: refusal + PRE})
    assert breaches() == {
        "empty_batch_is_clear": "sound/sum, example 0 with an empty 'texts' is refused without a word."
    }


def test_requests_keep_apart(install):
    install({PRE: f"self.note = request.note; {PRE}", "note=prepared.state": "note=self.note"})
    [(check, message)] = breaches().items()
    assert check == "requests_keep_apart"
    assert message == (
        "sound/sum, example 0: 15 of 16 requests at a time get another answer than alone. What belongs to a request "
        "goes into Prepared.state, not on the processor."
    )


def test_requests_are_not_changed(install):
    install({POST: f"prepared.prompts.clear(); {POST}"})
    assert breaches() == {"input_is_not_mutated": "sound/sum, example 0: its request is changed. Work on a copy."}


def test_outputs_are_not_changed(install):
    install({POST: f"outputs[0].data.sort() if outputs else None; {POST}"})
    assert breaches() == {
        "input_is_not_mutated": "sound/sum, example 0: an array of its outputs is changed. Work on a copy."
    }


def test_answers_are_the_same_from_a_new_processor(install):
    init = "def __init__(self, context):\n        super().__init__(context)\n        self.salt = id(self)\n\n    "
    install(
        {"def pre_process": f"{init}def pre_process", "note=prepared.state": "note=f'{prepared.state} {self.salt}'"}
    )
    assert breaches() == {"answers_are_deterministic": "sound/sum, example 0: a new processor gives another answer."}


def test_answers_are_the_same_again(install):
    """An answer that is never the same cannot be that which a request gets alone, either."""
    count = "self.count = getattr(self, 'count', 0) + 1"
    install({POST: f"{count}; {POST}", "note=prepared.state": "note=f'{prepared.state} {self.count}'"})
    found = breaches()
    assert found.keys() == {"answers_are_deterministic", "requests_keep_apart"}
    assert found["answers_are_deterministic"] == "sound/sum, example 0: asked twice, it gives two answers."


def test_bad_input_is_refused(install):
    install({PRE: f"request.note[0]; {PRE}"})
    assert breaches() == {
        "bad_input_is_refused": "sound/sum, example 0 with note = '': HookError: task 'sound' of poolkit-sound 1.0.0 "
        "failed in pre_process. Caused by IndexError: string index out of range"
    }


def test_bad_input_is_tried_deep_in_a_request(install):
    install({PRE: f"[text[0] for text in request.texts]; {PRE}"})
    found = breaches()
    assert found.keys() == {"blanks_keep_their_place", "bad_input_is_refused"}
    assert found["bad_input_is_refused"] == (
        "\n".join(
            f"sound/sum, example 0 with {where} = {value}: HookError: task 'sound' of poolkit-sound 1.0.0 failed in "
            "pre_process. Caused by IndexError: string index out of range"
            for where, value in (("texts", "['']"), ("texts[0]", "''"), ("texts[1]", "''"))
        )
    )


def test_routes_are_free(install):
    install({'"/sound/sum"': '"/health"'})
    assert failures() == {
        "routes_are_free": "poolkit-sound 1.0.0: operation 'sum' asks for the route '/health', which is taken. "
        "Choose another path, or leave it out: the operation has /tasks/<task>/<operation> anyway."
    }


def test_a_route_without_a_prefix_is_warned_of(install):
    install({'"/sound/sum"': '"/sum"'})
    [warned] = [result for result in check_plugin("poolkit-sound") if result.verdict not in ("passed", "skipped")]
    assert (warned.name, warned.verdict) == ("routes_are_prefixed", Verdict.WARNED)
    assert warned.message == (
        "the route '/sum' may be another plugin's as well. Put the task's name into it: '/sound/sum'."
    )


def test_a_check_newer_than_the_poolkit_a_plugin_was_made_for_only_warns(install):
    install({"api=1": "api=7"}, requires=["poolkit>=0.0.9,<0.2"])
    assert breaches() == {"api_is_supported": "task 'sound' has api=7; poolkit supports 1 to 1."}
    assert failures() == {}
