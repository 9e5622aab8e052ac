"""Puts the commands together, and turns every error that is no bug into a message and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import importlib_metadata
import typer

from poolkit.cli.config import config
from poolkit.cli.demo import demo
from poolkit.cli.embed import embed
from poolkit.cli.inspect import inspect
from poolkit.cli.options import underscores_too
from poolkit.cli.plugin_commands import add_plugin_commands
from poolkit.cli.plugins import plugins
from poolkit.cli.serve import serve
from poolkit.errors import ConfigError, PoolkitError

__all__ = ["main"]

FAILURE = 1
USAGE = 2

app = typer.Typer(
    name="poolkit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long option names off in a terminal of 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, serve, embed, inspect, config):
    app.command(context_settings=underscores_too)(command)
app.add_typer(plugins, name="plugins")


def main() -> None:
    """Run the command line of this process."""
    try:
        group = typer.main.get_group(app)
        add_plugin_commands(group, sys.argv[1:])
        group(prog_name="poolkit")
    except PoolkitError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILURE)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"poolkit {importlib_metadata.version('poolkit')}")
        raise typer.Exit


@app.callback()
def poolkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn text into vectors, labels and scores with any Hugging Face model.

    New here? Run  poolkit demo  to see it work, then  poolkit serve  to start an OpenAI-compatible server on
    http://127.0.0.1:8000.
    """
