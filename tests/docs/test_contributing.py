"""Pages for contributors agree with the repository: layers, commands, tests by name, decisions."""

import re
import tomllib
from fnmatch import fnmatch

import pytest

from docs.pages import DECISIONS, ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_layers_are_those_that_the_linter_checks():
    [contract] = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    rows = re.findall(r"^\| (`poolkit\..*?) \|", CONTRIBUTING, flags=re.MULTILINE)

    told = [set(re.findall(r"`([\w.]+)`", row)) for row in rows]
    assert told == [set(layer.split(" | ")) for layer in contract["layers"]]


def test_every_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w%-]+):", makefile, flags=re.MULTILINE)
    named = set(re.findall(r"make ([\w.-]+)", CONTRIBUTING))

    assert named
    assert [name for name in named if not any(fnmatch(name, target.replace("%", "*")) for target in targets)] == []


def test_every_path_that_is_named_exists():
    named = re.findall(r"\b((?:tests|docs|builtin_tasks|plugins|contrib)(?:/[\w.-]+)*)", CONTRIBUTING)

    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


def test_the_test_that_is_named_exists():
    [(file, test)] = re.findall(r"pytest '(tests/\S+)::(\w+)'", CONTRIBUTING)

    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_decision_is_listed_in_its_place():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\d+)\. \[(.*)\]\((.*)\)$", index, flags=re.MULTILINE)
    headings = [path.read_text(encoding="utf-8").splitlines()[0] for path in DECISIONS]

    assert [f"# {number}. {title}" for number, title, _ in listed] == headings
    assert [file for *_, file in listed] == [path.name for path in DECISIONS]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_tells_its_reason_and_what_was_refused(path):
    text = path.read_text(encoding="utf-8")

    assert re.findall(r"^\*\*(\w+)\.\*\* ", text, flags=re.MULTILINE) == ["Decision", "Reason", "Refused"]


def test_the_security_page_says_what_a_plugin_may_do():
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

    assert "**Enabling a plugin is the decision to trust it**" in " ".join(security.split())
