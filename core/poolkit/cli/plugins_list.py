"""`poolkit plugins list`: what is installed, and what of it is used."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolkit.cli.options import takes_settings
from poolkit.registry import Status, list_plugins
from poolkit.settings.settings import Resolved

__all__ = ["list_all"]

STYLES = {Status.ENABLED: "green", Status.QUARANTINED: "red", Status.MISSING: "red"}


@takes_settings(model_is_positional=False, only={"enable", "disable"})
def list_all(
    resolved: Resolved,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List every installed task and plugin, and whether it is used.

    Reads metadata only: no plugin is imported.
    """
    rows = list_plugins(resolved.plugins)
    if as_json:
        typer.echo(orjson.dumps([dataclasses.asdict(row) for row in rows], option=orjson.OPT_INDENT_2))
        return
    table = Table("status", "task", "plugin", "version", "entry point", "why", box=None, header_style="bold")
    for row in rows:
        cells = (row.task, row.plugin, row.version, row.entry_point, row.why)
        table.add_row(Text(row.status, STYLES.get(row.status, "dim")), *(Text(c, overflow="fold") for c in cells))
    Console().print(table)
