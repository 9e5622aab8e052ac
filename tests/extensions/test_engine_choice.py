"""`--engine auto`, the default, asks the enabled engines what they suit, and knows none of them by name."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from poolkit import LLM
from poolkit.errors import ConfigError, ModelError

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINE = """
import numpy as np
from poolkit import Decision, States

class Backbone:
    decisions = (Decision("path", "rows of {value}", "the engine"),)

    def __init__(self, info):
        self._size = info.hidden_size

    def __call__(self, batch):
        return States(np.full((len(batch.token_ids), self._size), {value}, np.float32))

def suits(info):
    {suits}

def load_backbone(info, *, taps=()):
    {load}
"""


def engine(value, *, suits="return None", load="return Backbone(info)"):
    return ENGINE.format(value=value, suits=suits, load=load)


@pytest.fixture
def add(install):
    """Return a function that installs packages with one engine each, by name, and gives what enables them."""

    def add(**sources):
        for name, source in sources.items():
            install(f"poolkit-{name}", modules={f"poolkit_{name}": source}, engines={name: f"poolkit_{name}"})
        return {"enable": [f"poolkit-{name}" for name in sources], "disable": []}

    return add


def chosen(llm):
    [(value, source)] = [(line.value, line.source) for line in llm.decisions if line.name == "engine"]
    return value, source


def first_number(llm):
    return llm.encode("a cat", use_tqdm=False)[0].outputs.data.ravel()[0]


def test_the_first_enabled_engine_that_suits_is_chosen_before_poolkits_own(checkpoint, add):
    settings = add(second=engine(2), first=engine(1))
    with LLM(str(checkpoint("bert")), task="token_embed", **settings) as llm:
        assert chosen(llm) == ("second", "auto")
        assert "rows of 2" in [line.value for line in llm.decisions]


def test_the_report_says_why_each_engine_before_the_chosen_one_does_not_run_the_model(checkpoint, add):
    settings = add(
        whale=engine(1, suits="return f'it runs whales, and this is {info.architecture}'"),
        weak=engine(2, load="return 'the self-check: it is weak'"),
        last=engine(3),
    )
    with LLM(str(checkpoint("bert")), task="token_embed", **settings) as llm:
        assert chosen(llm) == (
            "last",
            "auto: whale: it runs whales, and this is BertModel; weak: the self-check: it is weak",
        )
        np.testing.assert_allclose(first_number(llm), 1 / np.sqrt(48), rtol=1e-6)  # normalised


def test_an_engine_without_suits_is_never_chosen(checkpoint, add):
    silent = engine(1).replace("def suits", "def never_asked")
    with LLM(str(checkpoint("bert")), **add(silent=silent)) as llm:
        value, source = chosen(llm)
    assert value == "torch"
    assert "silent" not in source


def test_an_engine_that_is_not_enabled_is_not_asked(checkpoint, add):
    add(absent=engine(1))
    with LLM(str(checkpoint("bert"))) as llm:
        value, source = chosen(llm)
    assert value == "torch"
    assert "absent" not in source


def test_an_engine_that_is_named_is_not_asked_what_it_suits(checkpoint, add):
    settings = add(picky=engine(1, suits="return 'it is tired'"))
    with LLM(str(checkpoint("bert")), engine="picky", **settings) as llm:
        assert chosen(llm) == ("picky", "engine")


def test_a_classifier_falls_back_as_other_models_do(checkpoint, add):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False)
    with LLM(str(folder), **add(weak=engine(1, load="return 'it is weak'"))) as llm:
        value, source = chosen(llm)
        assert value == "torch"
        assert source.startswith("auto: weak: it is weak")
        assert len(llm.classify("a cat", use_tqdm=False)) == 1


def test_what_no_engine_can_run_is_refused_with_the_reason_of_each(checkpoint, add):
    settings = add(weak=engine(1, load="return 'it is weak'"))
    folder = checkpoint("bert")
    with pytest.raises(ModelError) as caught:
        LLM(str(folder), dtype="int8", **settings)
    first, *lines = str(caught.value).splitlines()
    assert first == f"No engine can run {folder}:"
    assert lines[0] == "  weak: it is weak"
    assert lines[-1] == "  torch: it does not compute in int8; set dtype to auto, float32 or bfloat16"


def test_an_engine_that_fails_to_say_what_it_suits_is_to_blame(checkpoint, add):
    folder = checkpoint("bert")
    with pytest.raises(ModelError) as caught:
        LLM(str(folder), **add(broken=engine(1, suits="return 1 / 0")))
    assert str(caught.value) == (
        f"Engine 'broken' failed to say if it suits {folder}: ZeroDivisionError: division by zero"
    )


def test_an_engine_that_describes_a_folder_is_the_one_to_run_it(tmp_path, add):
    describing = engine(1, suits="return 'it is tired'") + (
        "\ndef describe(folder, *, config):\n"
        "    from poolkit import ModelInfo, Output, TextSpec, VectorSpec\n"
        "    return ModelInfo(name=config.model, path=folder, architecture='Table', model_type='table',\n"
        "        outputs=(Output.VECTOR,), hidden_size=4, text=TextSpec(max_model_len=8, vocab_size=9),\n"
        "        vector=VectorSpec(size=4))\n"
    )
    with pytest.raises(ModelError) as caught:
        LLM(str(tmp_path), **add(table=describing))
    assert str(caught.value) == f"No engine can run {tmp_path}:\n  table: it is tired"


def test_inspect_shows_the_choice_and_does_not_import_the_last_resort(checkpoint, add, tmp_path):
    deciding = engine(1) + ("\ndef decide(info):\n    return [Decision('device', 'the moon', 'the engine')]\n")
    add(whale=engine(1, suits="return 'it runs whales'"), tiny=deciding)
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        f"sys.argv = ['poolkit', 'inspect', {str(checkpoint('bert'))!r}, '--json']\n"
        "sys.argv += ['--plugin', 'whale', '--plugin', 'tiny']\n"
        "from poolkit.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print('poolkit.engine.torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = {line["name"]: (line["value"], line["source"]) for line in json.loads(done.stdout)["decisions"]}
    assert lines["engine"] == ("tiny", "auto: whale: it runs whales")
    assert lines["device"] == ("the moon", "the engine")
    assert done.stderr.splitlines()[-1] == "False"


def test_an_unknown_engine_is_told(checkpoint):
    with pytest.raises(ConfigError, match=r"^no engine named 'atuo'\."):
        LLM(str(checkpoint("bert")), engine="atuo")
