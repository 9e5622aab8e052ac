"""`poolkit config`: every setting, its value, and where the value came from."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolkit.cli.options import takes_settings
from poolkit.settings.settings import Resolved

__all__ = ["config"]


@takes_settings(model_is_positional=True)
def config(resolved: Resolved) -> None:
    """Show every setting and where its value comes from.

    That is what  poolkit serve  with the same options would run with.

    Options win over environment variables (POOLKIT_PORT=8001, POOLKIT_POOLER_CONFIG__TASK=embed), those over
    poolkit.toml, and that over the defaults.
    """
    table = Table("setting", "value", "origin", box=None, header_style="bold", pad_edge=False)
    for row in resolved.rows():
        is_default = row.origin == "default"
        cells = (row.name, _shown(row.value), str(row.origin))
        table.add_row(*(Text(cell, overflow="fold") for cell in cells), style="dim" if is_default else None)
    Console().print(table)


def _shown(value: object) -> str:
    if value is None or value == () or value == {}:
        return "-"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
