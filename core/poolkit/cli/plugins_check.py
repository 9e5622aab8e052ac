"""`poolkit plugins check`: the conformance kit on one plugin."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolkit.registry import find_plugin

__all__ = ["check"]

CHECK_LIMIT_S = 30.0

STYLES = {"passed": "green", "failed": "red", "warned": "yellow", "skipped": "dim"}


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help='An installed plugin; "poolkit" is the built-in tasks.')],
    settings: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A setting of the plugin, the value in JSON or as it is. Repeatable."),
    ] = None,
    limit_s: Annotated[float, typer.Option("--limit", help="How many seconds a check may take.")] = CHECK_LIMIT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Try whether a plugin keeps the rules, enabled or not. Exit with 1 if it breaks one.

    Imports and runs it, in a process of its own, with an engine that needs no model.
    """
    from poolkit.testing import check_plugin  # here: the other commands need not wait for the kit

    plugin = find_plugin(name, named="to be checked")
    given = dict(_read_setting(setting) for setting in settings or ())
    results = check_plugin(plugin.name, settings=given, limit_s=limit_s)
    if as_json:
        typer.echo(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    else:
        table = Table("check", "verdict", "message", box=None, header_style="bold")
        for result in results:
            verdict = Text(result.verdict, STYLES[result.verdict])
            table.add_row(result.name, verdict, Text(result.message, overflow="fold"))
        Console().print(table)
        counts = Counter(result.verdict.value for result in results)
        listing = ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict])
        typer.echo(f"{plugin}: {listing}.")
    if any(result.verdict == "failed" for result in results):
        raise typer.Exit(1)


def _read_setting(text: str) -> tuple[str, object]:
    """Return the name and the value of `KEY=VALUE`. What is no JSON is a string.

    Raises:
        typer.BadParameter: there is no "=".
    """
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise typer.BadParameter(f"{text!r} is no setting. Write it as KEY=VALUE.", param_hint="--settings")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value
