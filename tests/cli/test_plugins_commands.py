"""Commands of plugins: there when the plugin is enabled, and never in the way of poolkit's own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distributions import Site, open_site
from poolkit.cli import main

GREET = """
from poolkit.contract import hookimpl
@hookimpl
def poolkit_commands(cli):
    @cli.command({name!r})
    def greet(name: str):
        \"\"\"Say hello.\"\"\"
        print("hello", name)
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with open_site(tmp_path / "site", monkeypatch) as opened:
        yield opened


@pytest.fixture
def poolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line and returns its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poolkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def install(site: Site, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    site.install("poolkit-greet", modules={"poolkit_greet": source}, hooks={"greet": "poolkit_greet"})
    monkeypatch.setenv("POOLKIT_ENABLE", "greet")


def test_an_enabled_plugin_adds_commands(poolkit, site, monkeypatch):
    install(site, monkeypatch, GREET.format(name="greet"))
    assert poolkit("greet", "Ada") == (0, "hello Ada\n", "")
    code, out, err = poolkit("--help")
    assert (code, err) == (0, "")
    assert "\n  greet    Say hello.\n" in out


def test_a_plugin_that_is_not_enabled_adds_none(poolkit, site, monkeypatch):
    install(site, monkeypatch, "raise SystemExit")
    monkeypatch.delenv("POOLKIT_ENABLE")
    code, _, err = poolkit("greet", "Ada")
    assert code == 2
    assert "No such command 'greet'." in err


@pytest.mark.parametrize("arguments", [("plugins", "list", "--json"), ("--version",), ("config",)])
def test_a_command_of_poolkits_own_imports_no_plugin(poolkit, site, monkeypatch, arguments):
    install(site, monkeypatch, "raise SystemExit")
    code, out, err = poolkit(*arguments)
    assert (code, err) == (0, "")
    assert out


FAILURE = (
    "PluginLoadError: poolkit-greet 1.0.0 failed in poolkit_commands: RuntimeError: no\n"
    "  entry point  greet = poolkit_greet\n"
    "  raised at    {file}:5\n"
    "  enabled by   POOLKIT_ENABLE\n"
)
FAILING = """\
from poolkit.contract import hookimpl

@hookimpl
def poolkit_commands(cli):
    raise RuntimeError("no")
"""


def test_a_plugin_that_fails_to_add_its_commands_says_why_when_its_command_is_wanted(poolkit, site, monkeypatch):
    install(site, monkeypatch, FAILING)
    assert poolkit("greet") == (1, "", FAILURE.format(file=site.path / "poolkit_greet.py"))


def test_help_is_shown_beside_the_failure_of_a_plugin(poolkit, site, monkeypatch):
    install(site, monkeypatch, FAILING)
    code, out, err = poolkit("--help")
    assert (code, err) == (0, FAILURE.format(file=site.path / "poolkit_greet.py") + "\n")
    assert "\n  serve " in out


def test_a_plugin_does_not_replace_a_command(poolkit, site, monkeypatch):
    install(site, monkeypatch, GREET.format(name="serve"))
    assert poolkit("greet") == (
        1,
        "",
        "PluginInvalidError: poolkit-greet 1.0.0 adds a command 'serve', which there is already. "
        "Give it another name.\n",
    )


def test_a_command_that_cannot_be_made_says_why(poolkit, site, monkeypatch):
    install(site, monkeypatch, GREET.format(name="greet").replace("name: str", "name: str | int"))
    code, _, err = poolkit("greet")
    assert code == 1
    assert err.startswith("PluginLoadError: poolkit-greet 1.0.0 adds a command that cannot be made: AssertionError: ")


def test_the_list_has_a_row_for_a_plugin_with_nothing_but_hooks(poolkit, site, monkeypatch):
    install(site, monkeypatch, "raise SystemExit")
    _, out, _ = poolkit("plugins", "list", "--json")
    assert json.loads(out)[-1] == {
        "status": "enabled",
        "kind": "hooks",
        "name": "greet",
        "plugin": "poolkit-greet",
        "version": "1.0.0",
        "entry_point": "poolkit_greet",
        "why": "enabled by POOLKIT_ENABLE",
    }


def rows_of(out: str) -> dict[tuple[str, str], tuple[str, str]]:
    return {(row["plugin"], row["name"]): (row["status"], row["why"]) for row in json.loads(out)}


def test_the_list_that_loads_shows_what_cannot_be_loaded(poolkit, site, monkeypatch):
    install(site, monkeypatch, "raise RuntimeError('no')")
    monkeypatch.delenv("POOLKIT_ENABLE")
    site.install("poolkit-vendor", modules={"poolkit_vendor": ""}, dialects={"vendor": "poolkit_vendor:DIALECT"})
    code, out, err = poolkit("plugins", "list", "--load", "--json", "--plugin", "*")
    assert (code, err) == (0, "")
    rows = rows_of(out)
    status, why = rows["poolkit-greet", "greet"]
    assert status == "quarantined"
    assert why.startswith(
        "poolkit-greet 1.0.0 failed to import: RuntimeError: no\n  entry point  greet = poolkit_greet\n"
    )
    status, why = rows["poolkit-vendor", "vendor"]
    assert status == "quarantined"
    assert why.startswith("poolkit-vendor 1.0.0 failed to import: AttributeError: module 'poolkit_vendor' has no ")
    assert rows["poolkit", "embed"] == ("enabled", "built in")


def test_the_list_that_loads_ends_with_1_where_a_start_up_would_fail(poolkit, site, monkeypatch):
    install(site, monkeypatch, "raise RuntimeError('no')")
    code, out, _ = poolkit("plugins", "list", "--load", "--json")
    status, _ = rows_of(out)["poolkit-greet", "greet"]
    assert (code, status) == (1, "failed")


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--plugin", f"plugin 'emebd', enabled by --plugin emebd, is not installed in {sys.prefix}."),
        (
            "--no-plugin",
            "'emebd', disabled by --no-plugin emebd, is neither a task nor a plugin that is installed. "
            "Did you mean 'embed'?",
        ),
    ],
)
def test_the_list_shows_a_name_that_is_that_of_nothing(poolkit, option, why):
    code, out, _ = poolkit("plugins", "list", "--json", option, "emebd")
    [row] = [row for row in json.loads(out) if row["status"] == "missing"]
    assert (code, row["why"]) == (0, why)
    assert poolkit("plugins", "list", "--load", "--json", option, "emebd")[0] == 1


def install_long_names(site: Site) -> None:
    """Install what does not fit into 80 columns."""
    site.install(
        "poolkit-a-plugin-with-a-long-name",
        modules={"poolkit_a_plugin_with_a_long_name": "raise SystemExit"},
        tasks={"a_task_with_a_long_name": "poolkit_a_plugin_with_a_long_name:A_TASK_WITH_A_LONG_NAME"},
        dialects={"one": "poolkit_a_plugin_with_a_long_name:ONE"},
    )


def test_a_list_that_is_piped_has_a_line_for_each_entry_point_and_breaks_no_name(poolkit, site, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    install_long_names(site)
    _, out, _ = poolkit("plugins", "list")
    assert [line.split() for line in out.splitlines() if "a_task_with_a_long_name" in line] == [
        [
            "installed",
            "task",
            "a_task_with_a_long_name",
            "poolkit-a-plugin-with-a-long-name",
            "1.0.0",
            "poolkit_a_plugin_with_a_long_name:A_TASK_WITH_A_LONG_NAME",
            *["not", "enabled;", "--plugin", "poolkit-a-plugin-with-a-long-name", "enables", "it"],
        ]
    ]


def test_a_list_in_a_narrow_terminal_breaks_no_name(poolkit, site, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    install_long_names(site)
    _, out, _ = poolkit("plugins", "list")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in out.splitlines()]
    assert "installed   task a_task_with_a_long_name of poolkit-a-plugin-with-a-long-name 1.0.0" in lines
    assert (
        "poolkit_a_plugin_with_a_long_name:A_TASK_WITH_A_LONG_NAME: "
        "not enabled; --plugin poolkit-a-plugin-with-a-long-name enables it"
    ) in lines


def test_the_entries_of_poolkits_own_tables_share_a_line(poolkit, site):
    with (site.path / "poolkit-0.1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("\n[poolkit.models]\npooling.cls = distributions\npooling.mean = distributions\n")
    _, out, _ = poolkit("plugins", "list")
    [line] = [line for line in out.splitlines() if " pooling " in line]
    assert line.split() == [
        "enabled",
        "pooling",
        "cls,",
        "mean",
        "poolkit",
        "0.1.0",
        "2",
        "entry",
        "points",
        "built",
        "in",
    ]
    _, out, _ = poolkit("plugins", "list", "--json")
    assert {("poolkit", "cls"), ("poolkit", "mean")} <= rows_of(out).keys()
