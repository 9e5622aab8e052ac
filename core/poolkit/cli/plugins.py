"""`poolkit plugins`: puts its subcommands together, each of which is a module of its own."""

from __future__ import annotations

from collections.abc import Callable

import typer

from poolkit.cli.options import underscores_too
from poolkit.cli.plugins_check import check
from poolkit.cli.plugins_info import info
from poolkit.cli.plugins_list import list_all
from poolkit.cli.plugins_new import new

__all__ = ["plugins"]

COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_all,
    "info": info,
    "check": check,
    "new": new,
}

plugins = typer.Typer(help="Show, check and write plugins and their tasks.", no_args_is_help=True)
for name, command in COMMANDS.items():
    plugins.command(name, context_settings=underscores_too)(command)
