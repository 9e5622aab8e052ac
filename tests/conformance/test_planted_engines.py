"""Bugs that authors of engines make, each planted in a sound one, and what the kit says of it."""

import re
from pathlib import Path

import pytest

from poolkit.testing import Verdict, check_plugin

ENGINE = """
from dataclasses import replace
from pathlib import Path

import numpy

from poolkit import Decision, States
from poolkit.testing import FAKE_MODEL, FakeTokenizer


def describe(folder, *, config):
    return replace(FAKE_MODEL, path=folder) if (folder / "table").exists() else None


def load_tokenizer(info):
    return FakeTokenizer()


def load_backbone(info, *, taps=()):
    return Table(info)


def write_model(folder):
    (folder / "table").write_text("of word vectors")


class Table:
    decisions = (Decision("path", "a table of word vectors", "the engine"),)

    def __init__(self, info):
        self.table = numpy.random.default_rng(0).standard_normal((info.vocab_size, 8)).astype("float32")
        self.buffer = numpy.zeros((4096, 8), "float32")

    def __call__(self, batch):
        tokens = self.table[batch.token_ids]
        return States(tokens)
"""

RETURN = "return States(tokens)"
TOKENS = "tokens = self.table[batch.token_ids]"


@pytest.fixture
def breaches(site):
    """Return a function that plants bugs in an engine and returns what failed or was warned of."""

    def breaches(changes, *, writes_model=True):
        source = ENGINE
        for old, new in changes.items():
            assert old in source
            source = source.replace(old, new)
        site.install(
            "poolkit-table",
            modules={"poolkit_table": source},
            engines={"table": "poolkit_table"},
            requires=["poolkit>=0.1,<0.2"],
        )
        if writes_model:
            entry_points = site.path / "poolkit_table-1.0.0.dist-info" / "entry_points.txt"
            entry_points.write_text(f"{entry_points.read_text()}\n[poolkit.fakes]\ntable = poolkit_table:write_model\n")
        results = check_plugin("poolkit-table")
        return {result.name: result.message for result in results if result.verdict in ("failed", "warned")}

    return breaches


def test_a_sound_engine(breaches):
    assert breaches({}) == {}


def test_an_engine_that_fails_in_threads(breaches):
    busy = "assert not self.busy, 'it is in use'\n        self.busy = True\n        import time; time.sleep(0.03)"
    found = breaches(
        {
            "    def __call__": "    busy = False\n\n    def __call__",
            TOKENS: f"{busy}\n        self.busy = False\n        {TOKENS}",
        }
    )
    assert found == {"engine_is_thread_safe": "engine 'table' in 4 threads: AssertionError: it is in use"}


def test_an_engine_that_does_not_load(breaches):
    assert breaches({"return Table(info)": "return Table(info, taps)"}) == {
        "engine_loads": "table = poolkit_table does not load: TypeError: Table.__init__() takes 2 positional arguments "
        "but 3 were given"
    }


def test_decisions_that_are_none(breaches):
    assert breaches({'(Decision("path", "a table of word vectors", "the engine"),)': '["numpy"]'}) == {
        "engine_loads": "table = poolkit_table: its decisions are ['numpy'], not a sequence of poolkit.Decision."
    }


def test_states_of_the_wrong_shape(breaches):
    found = breaches({RETURN: "return States(tokens[1:])"})
    assert found.keys() == {"engine_states_fit"}
    assert found["engine_states_fit"].splitlines()[0] == (
        "engine 'table' with an empty text: EngineError: The engine gave tokens of shape (1, 8) for 1 prompts of 2 "
        "tokens. It must give one row for each prompt, or for each token."
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("assert len(batch) == 1 or batch.segments.sizes[0] > 2", "all of them together"),
        ("assert max(batch.segments.sizes) < 60", "the longest text"),
        ("assert min(batch.segments.sizes) > 2", "an empty text"),
        (
            "assert len({ids.tobytes() for ids in batch.segments.split(batch.token_ids)}) == len(batch)",
            "each of them twice",
        ),
    ],
)
def test_a_prompt_that_is_too_much(breaches, line, what):
    found = breaches({TOKENS: f"{line}\n        {TOKENS}"})
    assert found.keys() == {"engine_states_fit"}
    assert found["engine_states_fit"].splitlines()[0] == f"engine 'table' with {what}: AssertionError"


def test_states_that_are_no_numbers(breaches):
    found = breaches({RETURN: "return States(numpy.log(tokens))"})
    assert found.keys() == {"engine_states_fit"}
    assert found["engine_states_fit"].splitlines()[0] == (
        "engine 'table' with an empty text: its states are infinite or not a number."
    )


@pytest.mark.parametrize(
    "line",
    [
        "tokens = tokens - tokens.mean(axis=0)",
        "tokens = tokens[::-1]",
        "tokens = numpy.cumsum(tokens, axis=0)",
        "order = numpy.argsort([len(part) for part in batch.segments.split(tokens)][::-1], kind='stable'); "
        "tokens = numpy.concatenate([batch.segments.split(tokens)[i] for i in order])",
    ],
    ids=["centred", "reversed", "summed up", "sorted"],
)
def test_prompts_that_tell_on_each_other(breaches, line):
    found = breaches({RETURN: f"{line}\n        {RETURN}"})
    assert "engine_batches_equal_singles" in found
    assert "that it gets alone." in found["engine_batches_equal_singles"]


def test_noise(breaches):
    found = breaches({RETURN: "return States(tokens + numpy.random.standard_normal(tokens.shape).astype('float32'))"})
    assert found["engine_is_deterministic"] == "engine 'table': run twice, a batch has two results."


def test_other_weights_each_time(breaches):
    assert breaches({"default_rng(0)": "default_rng()"}) == {
        "engine_is_deterministic": "engine 'table': loaded again, it gives other states."
    }


def test_a_buffer_that_threads_share(breaches):
    share = "self.buffer[: len(tokens)] = tokens\n        return States(self.buffer[: len(tokens)])"
    assert breaches({RETURN: share}) == {
        "engine_is_thread_safe": "engine 'table': in 4 threads at a time a batch gets other states than alone. Keep "
        "buffers by thread."
    }


def test_a_batch_that_is_changed(breaches):
    assert breaches({RETURN: f"batch.token_ids.sort()\n        {RETURN}"})["engine_leaves_batches_alone"] == (
        "engine 'table' changes token_ids of the batch. Work on a copy."
    )


@pytest.mark.parametrize(
    ("keeps", "line"),
    [
        ("self.kept = numpy.concatenate([self.kept, tokens])", 38),
        ("self.states = (*getattr(self, 'states', ()), tokens)", 37),
        ("import torch; self.tensors = torch.cat([self.tensors, torch.from_numpy(tokens)])", None),
    ],
    ids=["an array", "objects", "a tensor"],
)
def test_states_that_are_kept(breaches, keeps, line):
    start = 'self.kept = numpy.zeros((0, 8), "float32")\n        import torch; self.tensors = torch.zeros(0, 8)'
    found = breaches({"self.buffer =": f"{start}\n        self.buffer =", RETURN: f"{keeps}\n        {RETURN}"})
    where = "" if line is None else f" in poolkit_table.py, line {line}"
    assert found == {
        "engine_memory_is_given_back": f"engine 'table': each time a batch is run, memory is left behind{where}. What "
        "belongs to a batch must go with it."
    }


CACHE = "tokens = self.cache.setdefault(batch.token_ids.tobytes(), tokens)"


def test_a_cache_without_bounds(breaches):
    found = breaches({"self.buffer =": "self.cache = {}; self.buffer =", RETURN: f"{CACHE}\n        {RETURN}"})
    assert found == {
        "engine_caches_are_bounded": "engine 'table': 300 different batches later each one still leaves memory behind "
        "in poolkit_table.py, line 35. If nothing bounds what keeps them, give it a bound."
    }


def test_a_cache_with_bounds(breaches):
    bound = f"{CACHE}\n        if len(self.cache) > 100: self.cache.pop(next(iter(self.cache)))"
    assert breaches({"self.buffer =": "self.cache = {}; self.buffer =", RETURN: f"{bound}\n        {RETURN}"}) == {}


WORKER = """import threading
        self.stop = threading.Event()
        threading.Thread(target=self.work, daemon=True).start()
        self.buffer ="""
WORK = """
    def work(self):
        self.stop.wait()

    def __call__"""


def test_a_thread_that_is_left_running(breaches):
    found = breaches({"self.buffer =": WORKER, "\n    def __call__": WORK})
    assert found.keys() == {"engine_leaves_nothing_open"}
    assert re.sub(r"Thread-\d+", "Thread-N", found["engine_leaves_nothing_open"]) == (
        "engine 'table': the thread 'Thread-N (work)' still runs in Table.work (poolkit_table.py, line 38). End it in "
        "close()."
    )


def test_a_thread_that_ends_when_the_engine_is_closed(breaches):
    ends = f"\n    def close(self):\n        self.stop.set()\n{WORK}"
    assert breaches({"self.buffer =": WORKER, "\n    def __call__": ends}) == {}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells what is open")
@pytest.mark.parametrize(
    ("opens", "told"),
    [("import socket; OPEN.append(socket.socket())", "socket:["), ("OPEN.append(open('/dev/null'))", "/dev/null")],
)
def test_what_is_left_open(breaches, opens, told):
    found = breaches({"class Table": "OPEN = []\n\n\nclass Table", "self.buffer =": f"{opens}; self.buffer ="})
    assert found.keys() == {"engine_leaves_nothing_open"}
    assert found["engine_leaves_nothing_open"].startswith(f"engine 'table': {told}")
    assert found["engine_leaves_nothing_open"].endswith(" is still open. Close it in close().")


def test_a_close_that_raises(breaches):
    found = breaches({"\n    def __call__": "\n    def close(self):\n        1 / 0\n\n    def __call__"})
    assert found == {"engine_close_is_clean": "engine 'table' fails in close: ZeroDivisionError: division by zero"}


@pytest.mark.parametrize(
    ("returns", "problem"),
    [
        ("return 'gpu'", "find_device returns 'gpu', which is no device that torch knows."),
        ("return 0", "find_device returns 0, which is no device that torch knows."),
        (
            "return 'cuda'",
            "its hidden states are on 'cpu', and find_device returns 'cuda'. Return what holds them.",
        ),
    ],
)
def test_a_device_that_holds_no_states(breaches, returns, problem):
    device = f"def find_device(info):\n    {returns}\n\n\ndef load_backbone"
    assert breaches({"def load_backbone": device}) == {"engine_names_its_device": f"engine 'table': {problem}"}


def test_a_device_that_cannot_be_found(breaches):
    device = "def find_device(info):\n    return info['device']\n\n\ndef load_backbone"
    assert breaches({"def load_backbone": device}) == {
        "engine_names_its_device": "engine 'table' fails in find_device: TypeError: 'ModelInfo' object is not "
        "subscriptable"
    }


def test_a_device_that_holds_the_states(breaches):
    device = "def find_device(info):\n    return 'cpu:0'\n\n\ndef load_backbone"
    assert breaches({"def load_backbone": device}) == {}


def test_an_engine_that_runs_no_bert_is_told_how_to_be_examined(breaches):
    refuse = {"return Table(info)": "return 'it is no table'", ' if (folder / "table").exists() else None': ""}
    assert breaches(refuse, writes_model=False) == {}
    [message] = {result.message for result in check_plugin("poolkit-table") if result.name == "engine_states_fit"}
    assert message == (
        "engine 'table' cannot run the model that it was tried with: it is no table. Name a function that writes a "
        "small one into a folder in an entry point 'table' of group poolkit.fakes"
    )


def test_the_kit_examines_the_engine_of_poolkit():
    """With a BERT of two layers, in torch."""
    results = {result.name: result for result in check_plugin("poolkit")}
    assert {result.verdict for name, result in results.items() if name.startswith("engine_")} == {Verdict.PASSED}
