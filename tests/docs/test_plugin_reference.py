"""The references leave nothing out. That they say what the code says, test_examples checks."""

import dataclasses
import inspect
import re

import pytest
import typer.main

import poolkit.testing
from docs.pages import ROOT
from poolkit import contract, errors
from poolkit.cli.main import app

PAGE = (ROOT / "docs" / "plugin-reference.md").read_text(encoding="utf-8")
NAMES = (ROOT / "docs" / "api-reference.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^#{3,4} `(\w+).*?`\n(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
"""The text below the heading of each class and function."""

PUBLIC = [name for name in contract.__all__ if name in poolkit.__all__]
DEFINED = [getattr(contract, name) for name in PUBLIC]
RECORDS = [value for value in DEFINED if isinstance(value, type) and dataclasses.is_dataclass(value)]
HOOKS = [
    hook
    for _, holder in inspect.getmembers(contract, inspect.isclass)
    for _, hook in inspect.getmembers(holder, inspect.isfunction)
    if hasattr(hook, f"{contract.PROJECT}_spec")
]


def test_there_are_hooks_to_look_for():
    assert {"pre_process", "post_process", "poolkit_wrap", "poolkit_commands"} <= {hook.__name__ for hook in HOOKS}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_is_documented_with_its_arguments(hook):
    _, *arguments = inspect.signature(hook).parameters
    [heading] = re.findall(rf"^#### `{hook.__name__}\((.*)\) -> .*`$", PAGE, flags=re.MULTILINE)

    assert re.findall(r"(\w+): ", heading) == arguments
    assert SECTIONS[hook.__name__].strip().startswith((hook.__doc__ or "").splitlines()[0])


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_what_a_plugin_gets_and_gives_is_documented(record):
    documented = re.findall(r"^\| `(\w+)` \|", SECTIONS[record.__name__], flags=re.MULTILINE)

    assert documented == [field.name for field in dataclasses.fields(record) if field.name[0] != "_"]


@pytest.mark.parametrize("module", [poolkit, errors, poolkit.testing], ids=lambda module: module.__name__)
def test_every_public_name_has_a_section(module):
    headings = re.findall(r"^#{3,4} `(\w+)", PAGE + NAMES, flags=re.MULTILINE)

    assert [name for name in module.__all__ if headings.count(name) != 1] == []


@pytest.mark.parametrize("method", ["embed", "rerank", "encode", "run", "close"])
def test_what_can_be_called_on_a_class_is_in_its_section(method):
    [section] = re.findall(r"^### `LLM`\n(.*?)^### ", NAMES, flags=re.MULTILINE | re.DOTALL)

    assert f"\n`{method}(" in section


def test_every_command_for_plugins_is_on_the_page():
    commands = typer.main.get_command(app).commands["plugins"].commands

    assert [name for name in commands if f"#### `poolkit plugins {name}" not in PAGE] == []
