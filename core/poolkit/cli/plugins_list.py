"""`poolkit plugins list`: the installed plugins, and what of them is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolkit.cli.options import takes_settings
from poolkit.registry import Row, Status, list_plugins
from poolkit.settings.settings import Resolved

__all__ = ["list_all"]

STYLES = {Status.ENABLED: "green", Status.QUARANTINED: "red", Status.FAILED: "red", Status.MISSING: "red"}
HEADER = ("status", "kind", "name", "plugin", "version", "entry point", "why")
UNLIMITED = 10_000
"""Columns of a line that is read by a program: no name is broken."""


@takes_settings(model_is_positional=False, only={"enable", "disable"})
def list_all(
    resolved: Resolved,
    load: Annotated[bool, typer.Option("--load", help="Import what is enabled and show what fails.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List every installed task and plugin, and whether it is used.

    Reads metadata only: no plugin is imported, unless --load asks for it. Exit with 1 if one that must load does not.
    """
    rows = list_plugins(resolved.plugins, loads=load)
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        _print(list(_join_builtin(rows)))
    if load and any(row.status in (Status.FAILED, Status.MISSING) for row in rows):
        raise typer.Exit(1)


def _join_builtin(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield one row for each of poolkit's own tables (its module readers, its dialects), and the others as they are."""
    names: dict[tuple[str, Status], list[str]] = {}
    for row in rows:
        if row.why == "built in" and row.kind != "task":
            names.setdefault((row.kind, row.status), []).append(row.name)
    for row in rows:
        joined = names.get((row.kind, row.status))
        if row.why != "built in" or joined is None:
            yield row
        elif row.name == joined[0]:
            entry_point = row.entry_point if len(joined) == 1 else f"{len(joined)} entry points"
            yield dataclasses.replace(row, name=", ".join(joined), entry_point=entry_point)


def _print(rows: Sequence[Row]) -> None:
    """Print a line for each row, or two where the terminal is too narrow for one: a name is never broken."""
    console = Console()
    table = Table(*HEADER, box=None, header_style="bold")
    for row in rows:
        cells = (row.kind, row.name, row.plugin, row.version, row.entry_point, row.why.replace("\n", " "))
        table.add_row(Text(row.status, STYLES.get(row.status, "dim")), *cells)
    wide = Console(width=UNLIMITED, force_terminal=False)
    if not console.is_terminal:
        wide.print(table)
    elif wide.measure(table).maximum <= console.width:
        console.print(table)
    else:
        for row in rows:
            line = Text(f"{row.status:<11} ", STYLES.get(row.status, "dim"))
            line.append(f"{row.kind} {row.name} of {row.plugin} {row.version}".strip(), "default")
            console.print(line, soft_wrap=True)
            reason = f"{row.entry_point}: {row.why}" if row.entry_point else row.why
            console.print(Text(reason), style="dim", soft_wrap=True)
