"""The page for plugin authors: its plugins are made of what it shows, installed, and asked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import ROOT

PAGE = (ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
NUMBERS = {"Three": 3, "Four": 4, "Five": 5, "Six": 6}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


PLUGIN = blocks("python")[0]
PLUGIN_PROJECT = blocks("toml")[0]
[WRAPPER] = [code for code in blocks("python") if "poolkit_wrap" in code]
[WRAPPER_ENTRY] = [table for table in blocks("toml") if "poolkit.plugins" in table]
WRAPPER_PROJECT = PLUGIN_PROJECT[: PLUGIN_PROJECT.index("[project.entry-points")].replace("shout", "lowercase")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like site-packages with the page's plugins in it."""
    site = tmp_path_factory.mktemp("site")
    for module, code, project in (
        ("poolkit_shout", PLUGIN, PLUGIN_PROJECT),
        ("poolkit_lowercase", WRAPPER, WRAPPER_PROJECT + WRAPPER_ENTRY),
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
        "print(upper == lower)\n"
    )

    assert printed == "True\n"


def test_the_way_to_an_answer_has_the_number_of_commands_that_the_page_says():
    [number] = re.findall(r"^(\w+) commands, ", PAGE, flags=re.MULTILINE)
    commands = blocks("sh")[0].splitlines()

    assert len(commands) == NUMBERS[number]


def test_the_way_to_an_answer_is_what_poolkit_plugins_new_tells(tmp_path):
    _, new, *rest = blocks("sh")[0].splitlines()
    command = [sys.executable, "-c", "from poolkit.cli import main; main()", *new.split()[1:], "--json"]

    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    assert json.loads(done.stdout)["next"] == rest
