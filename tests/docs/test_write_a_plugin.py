"""The page for plugin authors: its plugins are made of what it shows, installed, and asked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from docs.pages import ROOT
from poolkit import Module, Segments, States

PAGE = (ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
NUMBERS = {"Three": 3, "Four": 4, "Five": 5, "Six": 6}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


PLUGIN = blocks("python")[0]
PLUGIN_PROJECT = blocks("toml")[0]
[WRAPPER] = [code for code in blocks("python") if "poolkit_wrap" in code]
[WRAPPER_ENTRY] = [table for table in blocks("toml") if "poolkit.plugins" in table]
[MARKS] = [code for code in blocks("python") if "poolkit_marks" in code]
[DIALECT] = [code for code in blocks("python") if "DIALECT = " in code]
[DIALECT_ENTRY] = [table for table in blocks("toml") if "poolkit.dialects" in table]
[RUN_ONCE] = [code for code in blocks("python") if "class RunOnce" in code]
[MAXIMUM] = [code for code in blocks("python") if "def create_head" in code]
[ENGINE] = [code for code in blocks("python") if "def load_backbone" in code]
[WHITENING] = [code for code in blocks("python") if "class Whitening" in code]
[MEDIAN] = [code for code in blocks("python") if "def pool_median" in code]
[ENGINE_ENTRY] = [table for table in blocks("toml") if "poolkit.engines" in table]
RUN_ONCE += "from poolkit import hookimpl\n@hookimpl\ndef poolkit_wrap(context, settings):\n    return [RunOnce()]\n"
HEAD = PLUGIN_PROJECT[: PLUGIN_PROJECT.index("[project.entry-points")]
WRAPPER_PROJECT = PLUGIN_PROJECT[: PLUGIN_PROJECT.index("[project.entry-points")].replace("shout", "lowercase")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like site-packages with the page's plugins in it."""
    site = tmp_path_factory.mktemp("site")
    for module, code, project in (
        ("poolkit_shout", PLUGIN, PLUGIN_PROJECT),
        ("poolkit_lowercase", WRAPPER, WRAPPER_PROJECT + WRAPPER_ENTRY),
        (
            "poolkit_runonce",
            RUN_ONCE,
            (HEAD + WRAPPER_ENTRY.replace("lowercase", "runonce")).replace("shout", "runonce"),
        ),
        ("poolkit_marks", MARKS, PLUGIN_PROJECT.replace("shout", "marks")),
        ("poolkit_static", ENGINE, HEAD.replace("shout", "static") + ENGINE_ENTRY),
        ("poolkit_tei", DIALECT, HEAD.replace("shout", "tei") + DIALECT_ENTRY),
    ):
        folder = tmp_path_factory.mktemp(module)
        (folder / f"{module}.py").write_text(code, encoding="utf-8")
        (folder / "pyproject.toml").write_text(project, encoding="utf-8")
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
        command = [sys.executable, "-m", "pip", "install", *options, str(folder)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return site


@pytest.fixture
def run(site: Path):
    """Return a function that runs code where the page's plugins are installed, and returns what it prints."""

    def run(code: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_first_paragraph_says_that_enabling_a_plugin_is_trusting_it():
    _, first, *_ = PAGE.split("\n\n")

    assert first.startswith("A plugin runs with the privileges of the server")
    assert "decision to trust it" in first


def test_the_first_plugin_has_the_lines_that_its_title_says():
    assert "## Fifteen lines" in PAGE
    assert len([line for line in PLUGIN.splitlines() if line.strip()]) == 15


def test_the_first_plugin_answers(run):
    printed = run(
        "from poolkit.testing import fake_model\n"
        "from poolkit_shout import Request\n"
        "with fake_model('shout', plugin='poolkit-shout') as served:\n"
        "    equal, other = served.run('compare', Request(query='a cat', texts=['a cat', 'a dog'])).scores\n"
        "print(0 < equal, other < equal)\n"
    )

    assert printed == "True True\n"


def test_the_wrapper_surrounds_a_built_in_task(run):
    printed = run(
        "from poolkit import EmbeddingsRequest\n"
        "from poolkit.testing import fake_model\n"
        "with fake_model('embed', plugin='poolkit-lowercase') as served:\n"
        "    upper, lower = served.run('embeddings', EmbeddingsRequest(input=['A CAT', 'a cat'])).prompt_token_ids\n"
        "print(list(upper) == list(lower))\n"
    )

    assert printed == "True\n"


def test_the_task_for_tokens_marks_characters(run):
    printed = run(
        "from poolkit.testing import fake_model\n"
        "from poolkit_marks import Request\n"
        "text = 'a few words of no meaning at all'\n"
        "with fake_model('marks', plugin='poolkit-marks') as served:\n"
        "    marks = served.run('mark', Request(text=text)).marks\n"
        "print({text[start:end] for start, end in marks} <= set(text.split()), 0 < len(marks) < 9)\n"
    )

    assert printed == "True True\n"


def test_equal_prompts_run_once_where_the_wrapper_around_the_model_is_enabled(run):
    printed = run(
        "from poolkit import EmbeddingsRequest\n"
        "from poolkit.testing import fake_model\n"
        "with fake_model('embed', plugin='poolkit-runonce') as served:\n"
        "    vectors = served.run('embeddings', EmbeddingsRequest(input=['a', 'b', 'a'])).embeddings\n"
        "    print(served.stats().prompts_run, (vectors[0] == vectors[2]).all(), (vectors[0] == vectors[1]).all())\n"
    )

    assert printed == "2 True False\n"


def test_the_head_takes_the_maximum_over_the_tokens_of_each_text():
    page: dict = {}
    exec(compile(MAXIMUM, "write-a-plugin.md", "exec"), page)
    states = States(torch.tensor([[1.0, 5.0], [3.0, 2.0], [0.0, 4.0]]), Segments.of([2, 1]))

    assert page["create_head"](None)(states, None).rows.tolist() == [[3, 5], [0, 4]]


def test_the_reader_of_a_module_says_what_it_does_to_a_row(tmp_path):
    page: dict = {"__name__": "poolkit_whitening"}
    exec(compile(WHITENING, "write-a-plugin.md", "exec"), page)
    (tmp_path / "config.json").write_text('{"in_features": 2, "out_features": 1}')
    save_file(
        {"mean": torch.tensor([1.0, 2.0]), "matrix": torch.tensor([[2.0], [3.0]])}, tmp_path / "model.safetensors"
    )

    spec = page["read"](Module(type="poolkit_whitening.Whitening", folder=tmp_path, root=tmp_path))

    assert (str(spec), spec.load) == ("whitening to 1", "poolkit_whitening:load")
    assert page["load"](spec, device="cpu")(torch.tensor([[2.0, 4.0]])).tolist() == [[8.0]]


def test_the_pooling_mode_takes_the_median_of_each_prompt():
    page: dict = {}
    exec(compile(MEDIAN, "write-a-plugin.md", "exec"), page)
    rows = torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 9.0], [0.0, 4.0]])

    assert page["pool_median"](rows, Segments.of([3, 1]).on("cpu")).tolist() == [[2, 5], [0, 4]]


def test_the_engine_serves_a_model(run):
    printed = run(
        "from poolkit import LLM\n"
        "with LLM(engine='static', enable=['poolkit-static']) as llm:\n"
        "    [same, other] = llm.score('a cat', ['cat a', 'stock prices'], use_tqdm=False)\n"
        "print(round(same.outputs.score, 4), other.outputs.score < 0.9)\n"
    )

    assert printed == "1.0 True\n"


def test_the_dialect_answers_in_its_own_words(run):
    printed = run(
        "import asyncio, httpx\n"
        "from poolkit import create_app\n"
        "from poolkit.testing import fake_model\n"
        "async def ask(app):\n"
        "    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://test') as client:\n"
        "        for inputs in (['a', 'b'], 5):\n"
        "            response = await client.post('/embed', json={'inputs': inputs})\n"
        "            answer = response.json()\n"
        "            print(response.status_code, sorted(answer) if isinstance(answer, dict) else len(answer))\n"
        "with fake_model('embed', plugin='poolkit-tei') as served:\n"
        "    asyncio.run(ask(create_app(served)))\n"
    )

    assert printed == "200 2\n400 ['error', 'error_type']\n"


def test_the_way_to_an_answer_has_the_number_of_commands_that_the_page_says():
    [number] = re.findall(r"^(\w+) commands, ", PAGE, flags=re.MULTILINE)
    commands = blocks("sh")[0].splitlines()

    assert len(commands) == NUMBERS[number]


def test_the_way_to_an_answer_is_what_poolkit_plugins_new_tells(tmp_path):
    _, new, *rest = blocks("sh")[0].splitlines()
    command = [sys.executable, "-c", "from poolkit.cli import main; main()", *new.split()[1:], "--json"]

    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    assert json.loads(done.stdout)["next"] == rest
