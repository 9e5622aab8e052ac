"""`poolkit plugins info`: what a task or plugin is, with the plugin itself imported and no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distributions import Site, open_site
from poolkit.cli import main

SOURCE = """\
from pydantic import BaseModel, ConfigDict, Field

from distributions import Processor, make_task
from poolkit.contract import hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    labels: list[str]
    threshold: float = 0.5


def fits(model):
    return None


class NERProcessor(Processor):
    pass


NER = make_task(
    "ner", summary="Finds names.", requires=fits, settings=Settings, io_processor="poolkit_gliner:NERProcessor"
)


@hookimpl
def poolkit_wrap(context, settings):
    return []
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with open_site(tmp_path / "site", monkeypatch) as opened:
        opened.install(
            "poolkit-gliner",
            "0.3.1",
            modules={"poolkit_gliner": SOURCE},
            tasks={"ner": "poolkit_gliner:NER", "entities": "poolkit_gliner:NER"},
            hooks={"gliner": "poolkit_gliner"},
            requires=["poolkit<2"],
        )
        opened.install("poolkit-evil", modules={"poolkit_evil": "raise SystemExit"}, hooks={"evil": "poolkit_evil"})
        yield opened


@pytest.fixture
def info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `poolkit plugins info` and returns its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poolkit", "plugins", "info", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


TASK = """\
task ner
  entry point  ner = poolkit_gliner:NER
  defined at   {file}
  api          1
  summary      Finds names.
  output       vector
  activation   identity
  activates    True
  parameters   dimensions, use_activation
  requires     {file}:13
  wrapped by   poolkit-evil
  settings     labels: array of string
               threshold: number = 0.5

operation measure
  processor    poolkit_gliner:NERProcessor
  defined at   {file}:17
  route        POST /tasks/ner/measure
  route        POST /pooling
  request      texts: array of string
  response     lengths: array of integer
"""
HEAD = """\
poolkit-gliner 0.3.1
  status       {status}
  location     {folder}
  requires     poolkit <2
"""
HOOKS = """\
hook module
  entry point  gliner = poolkit_gliner
  defined at   {file}
  poolkit_wrap {file}:26
  settings     labels: array of string
               threshold: number = 0.5
"""


@pytest.mark.parametrize("name", ["ner", "gliner:ner", "poolkit-gliner:ner"])
def test_a_task_is_shown_whole_and_no_other_plugin_is_imported(info, site: Site, name: str):
    code, out, err = info(name, "--plugin", "evil")
    assert (code, err) == (0, "")
    assert out == "\n".join((HEAD, TASK, HOOKS)).format(
        status="installed: not enabled; --plugin poolkit-gliner enables it",
        folder=site.path,
        file=site.path / "poolkit_gliner.py",
    )


def test_a_plugin_is_shown_with_all_its_tasks(info):
    code, out, _ = info("gliner", "--plugin", "gliner")
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "poolkit-gliner 0.3.1",
        "",
        "task entities",
        "",
        "operation measure",
        "",
        "task ner",
        "",
        "operation measure",
        "",
        "hook module",
    ]
    assert "  status       enabled: enabled by --plugin gliner" in out.splitlines()


def test_a_built_in_task_is_shown_with_no_settings(info):
    code, out, _ = info("token_embed")
    assert code == 0
    assert "  status       enabled: built in" in out.splitlines()
    assert "  wrapped by   no plugin" in out.splitlines()
    assert "  settings     none" in out.splitlines()


def test_json_has_the_schemas_whole(info, site: Site):
    code, out, _ = info("ner", "--json")
    assert code == 0
    [plugin] = json.loads(out)
    assert (plugin["plugin"], plugin["version"], plugin["status"]) == ("poolkit-gliner", "0.3.1", "installed")
    [task] = plugin["tasks"]
    assert task["defined_at"] == str(site.path / "poolkit_gliner.py")
    assert task["settings"]["properties"]["threshold"]["default"] == 0.5
    [operation] = task["operations"]
    assert operation["request"]["examples"] == [{"texts": ["a", "b"]}]
    assert operation["response"]["properties"]["lengths"]["items"] == {"type": "integer"}


def test_the_name_of_a_built_in_task_imports_no_plugin_that_is_not_enabled(info, site: Site):
    modules = {"poolkit_other": "raise SystemExit"}
    site.install("poolkit-other", modules=modules, tasks={"embed": "poolkit_other:EMBED"})
    code, out, _ = info("embed", "--json")
    assert (code, [plugin["plugin"] for plugin in json.loads(out)]) == (0, ["poolkit"])
    code, _, err = info("other:embed")
    assert code == 1
    assert err.startswith("PluginLoadError: poolkit-other 1.0.0 failed to import: SystemExit\n")


def test_entries_of_open_tables_and_what_a_hook_module_serves_are_shown(info, site: Site):
    source = "from poolkit.contract import hookimpl\nserves = ('max_embed_len',)\n"
    source += "@hookimpl\ndef poolkit_wrap(context, settings): return []\n"
    site.install(
        "poolkit-vendor",
        modules={"poolkit_vendor": source},
        hooks={"vendor": "poolkit_vendor"},
        models={"module.LSTM": "poolkit_vendor:LSTM", "family.rnn": "poolkit_vendor:RNN"},
        dialects={"vendor": "poolkit_vendor:DIALECT"},
    )
    code, out, _ = info("vendor")
    assert code == 0
    lines = out.splitlines()
    assert [line for line in lines if ("poolkit_vendor:" in line and "defined" not in line) or "serves" in line][
        :4
    ] == [
        "  family       family.rnn = poolkit_vendor:RNN",
        "  module       module.LSTM = poolkit_vendor:LSTM",
        "  dialect      vendor = poolkit_vendor:DIALECT",
        "  serves       max_embed_len",
    ]


def test_a_task_of_two_plugins_is_shown_twice(info, site: Site):
    site.install_task("poolkit-flair", "1.2.0", "ner")
    _, out, _ = info("ner", "--json")
    assert [plugin["plugin"] for plugin in json.loads(out)] == ["poolkit-flair", "poolkit-gliner"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nre", " Did you mean 'ner'?"),
        ("glinr", " Did you mean 'gliner'?"),
        ("poolki", " Did you mean 'poolkit'?"),
        ("torch", " 'torch' is an engine of poolkit 0.1.0: name the plugin."),
    ],
)
def test_an_unknown_name_gets_a_suggestion(info, name: str, hint: str):
    code, out, err = info(name)
    assert (code, out) == (1, "")
    assert err == (
        f"PluginNotFoundError: no task or plugin named {name!r} is installed.{hint}\n"
        "  Tasks: classify, embed, entities, ner, reward, token_classify, token_embed.  "
        "Installed plugins: poolkit 0.1.0, poolkit-evil 1.0.0, poolkit-gliner 0.3.1.\n"
    )


def test_a_task_that_its_plugin_does_not_have_is_told_by_the_plugins_tasks(info):
    assert info("gliner:nre") == (
        1,
        "",
        "UnknownTaskError: poolkit-gliner 0.3.1 has no task named 'nre'. Did you mean 'ner'?\n"
        "  Its tasks: entities, ner.\n",
    )


def test_a_task_of_a_plugin_that_is_not_installed_is_told_by_the_plugins(info):
    assert info("glinr:ner") == (
        1,
        "",
        f"PluginNotFoundError: plugin 'glinr', named in \"glinr:ner\", is not installed in {sys.prefix}. "
        "Did you mean 'gliner'?\n"
        "  Installed plugins: poolkit 0.1.0, poolkit-evil 1.0.0, poolkit-gliner 0.3.1.\n",
    )


def test_a_broken_plugin_says_why(info, site: Site):
    code, _, err = info("evil")
    assert code == 1
    assert err == (
        "PluginLoadError: poolkit-evil 1.0.0 failed to import: SystemExit\n"
        "  entry point  evil = poolkit_evil\n"
        f"  raised at    {site.path / 'poolkit_evil.py'}:1\n"
        "  enabled by   poolkit plugins info\n"
    )
