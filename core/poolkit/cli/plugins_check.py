"""`poolkit plugins check`: the conformance kit on one plugin, in a process of its own."""

from __future__ import annotations

from typing import Annotated, cast

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolkit.registry import find_plugin

__all__ = ["check"]

LIMIT_S = 600.0

STYLES = {"passed": "green", "failed": "red", "warned": "yellow", "skipped": "dim"}


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help='An installed plugin; "poolkit" is the built-in tasks.')],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Try whether a plugin keeps the rules, enabled or not. Exit with 1 if it breaks one.

    Imports and runs it, in a process of its own, with an engine that needs no model.
    """
    from poolkit.testing.fresh import DiedError, run_fresh  # here: the other commands need not wait for the kit

    plugin = find_plugin(name, named="to be checked")
    try:
        results = cast("list[dict[str, str]]", run_fresh("poolkit.testing", plugin.name, limit_s=LIMIT_S))
    except DiedError as error:
        results = [{"name": "process_survives", "verdict": "failed", "message": f"{error}."}]
    if as_json:
        typer.echo(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    else:
        table = Table("check", "verdict", "message", box=None, header_style="bold")
        for result in results:
            verdict = Text(result["verdict"], STYLES[result["verdict"]])
            table.add_row(result["name"], verdict, Text(result["message"], overflow="fold"))
        Console().print(table)
        verdicts = [result["verdict"] for result in results]
        counts = (f"{verdicts.count(verdict)} {verdict}" for verdict in STYLES if verdict in verdicts)
        typer.echo(f"{plugin}: {', '.join(counts)}.")
    if any(result["verdict"] == "failed" for result in results):
        raise typer.Exit(1)
