"""Runs the examples of the README and the docs, and looks up the names in them."""

import contextlib
import doctest
import io
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer.core
import typer.main

from checkpoints import make_checkpoint, write_json
from docs.pages import DOCUMENTS, PAGES, ROOT, console_examples, mentions, python_examples
from image_models import make_image_model, picture
from poolkit.cli.main import app

CI_RUNS = re.findall(r"^make \w+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
MODELS = {
    "my-classifier": {"family": "bert", "head": "ForSequenceClassification", "sentence_transformers": False},
    "my-tagger": {"family": "bert", "head": "ForTokenClassification", "sentence_transformers": False},
    "my-reward-model": {"family": "qwen2", "head": "ForTokenClassification", "sentence_transformers": False},
    "my-embedder": {"family": "bert"},
}
IMAGE_MODELS = {"my-clip": "clip", "my-page-finder": "colpali"}
IS_LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def environment():
    """The environment of a reader's shell after `source .venv/bin/activate`, in a wide window."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def address(environment, tmp_path_factory):
    """Where `poolkit serve` listens; that it ends cleanly is part of the test."""
    command = ["poolkit", "serve", "--port", "0"]
    folder = tmp_path_factory.mktemp("server")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder) as server:
        lines = []
        for line in server.stderr:
            lines.append(line)
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("".join(lines))
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
            assert client.get(f"http://{found[1]}/readyz").status_code == 200
        yield found[1]
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
    assert server.returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the examples of all pages run in, one after the other, with the models that they name."""
    folder = tmp_path_factory.mktemp("reader")
    for name, settings in MODELS.items():
        make_checkpoint(folder / name, **settings)
    for name, family in IMAGE_MODELS.items():
        make_image_model(folder / name, family)
    (folder / "page.png").write_bytes(picture(60, 80).data)
    prompts = {"prompts": {"query": "query: ", "document": "document: "}}
    write_json(folder / "my-embedder" / "config_sentence_transformers.json", prompts)
    return folder


def check_output(example, output):
    if example.expected is not None:
        is_right = doctest.OutputChecker().check_output(example.expected, output, IS_LIKE)
        assert is_right, f"{example.place} printed:\n{output}"


@pytest.mark.parametrize("example", list(python_examples()), ids=lambda example: example.place)
def test_a_python_example_runs_and_prints_what_the_page_says(example, request, folder, monkeypatch):
    monkeypatch.chdir(folder)
    code = example.at(request.getfixturevalue("address")) if example.needs_server else example.code
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile(code, example.place, "exec"), {"__name__": "__main__"})

    check_output(example, output.getvalue())


@pytest.mark.parametrize(
    "example", list(console_examples()), ids=lambda example: f"{example.place} {example.code[:30]}"
)
def test_a_command_runs_and_prints_what_the_page_says(example, request, environment, folder):
    if example.code == "poolkit serve":
        request.getfixturevalue("address")
        return
    if example.code.startswith("make "):
        assert " ".join(example.code.split()[:2]) in CI_RUNS
        return
    code = example.at(request.getfixturevalue("address")) if example.needs_server else example.code

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )

    assert done.returncode == 0, done.stderr
    check_output(example, done.stdout)


def test_every_option_on_a_page_exists():
    def options(command):
        nested = command.commands.values() if isinstance(command, typer.core.TyperGroup) else ()
        own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        return own.union(*(options(each) for each in nested))

    assert mentions(r"[\s`(](--[a-z][a-z.-]+)") - options(typer.main.get_command(app)) == set()


def test_every_command_on_a_page_exists():
    commands = set(typer.main.get_command(app).commands)
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))

    assert mentions(r"[`$] ?poolkit ([a-z]+)") <= commands
    assert mentions(r"[`$] ?make (\w+)") <= targets


def test_every_route_on_a_page_exists(address):
    rows = [row.split() for row in mentions(r"\| (`(?:GET|POST) /.*?) \|")]
    routes = [(row[0].strip("`"), path.strip("`,")) for row in rows for path in row[1:]]
    expected = {"GET": 200, "POST": 400}  # 400: the body is empty
    with httpx.Client(base_url=f"http://{address}") as client:
        answers = {(method, path): client.request(method, path).status_code for method, path in routes}

    assert len(answers) > 10
    assert {route: status for route, status in answers.items() if status != expected[route[0]]} == {}


def test_every_link_between_pages_leads_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in DOCUMENTS
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generated_parts_of_a_page_are_what_the_code_says(page):
    text = page.read_text(encoding="utf-8")
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]

    assert generated(text) == text, "Run  make docs."
