"""Commands that enabled plugins add to `poolkit`, through the start-up hook `poolkit_commands`."""

from __future__ import annotations

from collections.abc import Container, Sequence

import typer
from typer.core import TyperGroup

from poolkit.errors import PluginInvalidError, PluginLoadError, PoolkitError
from poolkit.registry import HookModule, load_hook_modules
from poolkit.settings.settings import resolve_settings

__all__ = ["add_plugin_commands"]


def add_plugin_commands(poolkit: TyperGroup, arguments: Sequence[str]) -> None:
    """Add the commands of the plugins that poolkit.toml and the environment enable.

    Only where they can matter: a command of poolkit's own imports no plugin on the way, and works when one is broken.
    The help is shown without the commands of a broken one.

    Raises:
        PoolkitError: a plugin cannot be used, and the command line asks for what may be its command.
    """
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    if wanted in poolkit.commands or "--version" in arguments:
        return
    try:
        for module in load_hook_modules(resolve_settings({}).plugins):
            poolkit.commands.update(_make_group(module, taken=poolkit.commands).commands)
    except PoolkitError as error:
        if wanted is not None:
            raise
        typer.echo(f"{type(error).__name__}: {error}\n", err=True)


def _make_group(module: HookModule, *, taken: Container[str]) -> TyperGroup:
    cli = typer.Typer(rich_markup_mode=None)
    module.add_commands(cli)
    try:
        group = typer.main.get_group(cli)
    except Exception as error:  # typer looks at the functions only now
        message = f"{module.plugin} adds a command that cannot be made: {type(error).__name__}: {error}"
        raise PluginLoadError(message, plugin=module.plugin.name) from error
    for name in group.commands:
        if name in taken:
            raise PluginInvalidError(
                f"{module.plugin} adds a command {name!r}, which there is already. Give it another name.",
                plugin=module.plugin.name,
            )
    return group
