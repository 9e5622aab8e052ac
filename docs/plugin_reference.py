"""Writes the generated parts of the references: what the code and its docstrings say of every public name."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import TypeGuard

from sections import describe_function, describe_name, docstring, home_of, table
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

import poolkit
import poolkit.testing
from poolkit import errors
from poolkit.cli.main import app
from poolkit.contract import (
    dialect,
    encoder,
    engine,
    hooks,
    modality,
    model_files,
    model_info,
    model_specs,
    output_kinds,
    outputs,
    params,
    pooler,
    prompts,
    scope,
    task,
)

__all__ = ["reference_parts"]

CONTRACT = (
    prompts,
    params,
    outputs,
    task,
    hooks,
    scope,
    dialect,
    encoder,
    modality,
    engine,
    pooler,
    output_kinds,
    model_info,
    model_specs,
    model_files,
)
"""The modules of the contract, in the order of the page."""

ROOMS = {
    "offline": "poolkit.offline",
    "requests": "poolkit.operations",
    "heads": "poolkit.engine",
    "configuration": "poolkit.config",
}
"""The packages of the other names, by the part of api-reference.md that shows them; the part `others` has the rest."""


def reference_parts() -> dict[str, str]:
    """Return the text of each part by its name."""
    body = [node for module in CONTRACT for node in ast.parse(inspect.getsource(module)).body]
    hooks = {node.name for node in body if isinstance(node, ast.ClassDef) and any(map(_is_hook, node.body))}
    defined = [node.name for node in body if isinstance(node, ast.ClassDef)]
    records = [name for name in defined if name in poolkit.__all__ and name not in hooks]
    others = [name for name in poolkit.__all__ if name not in defined]
    rooms = {name: _room(home_of(poolkit, name)) for name in others}
    return {
        "hooks": _sections(_describe_hooks(body)),
        "records": _sections(describe_name(poolkit, name) for name in records),
        "testing": _sections(_describe_exports(poolkit.testing)),
        "commands": _sections(_describe_commands("plugins")),
        "exceptions": _sections(_describe_exports(errors)),
        **{
            part: _sections(describe_name(poolkit, name) for name in others if rooms[name] == part)
            for part in (*ROOMS, "others")
        },
    }


def _room(home: str) -> str:
    return next((part for part, prefix in ROOMS.items() if home.startswith(prefix)), "others")


def _sections(sections: Iterator[str]) -> str:
    return "\n\n".join(sections)


def _describe_hooks(body: list[ast.stmt]) -> Iterator[str]:
    """Yield every hook, those of a class below what the class says of them."""
    for node in body:
        if isinstance(node, ast.ClassDef) and any(map(_is_hook, node.body)):
            yield f"### `{node.name}`\n\n{docstring(node)}"
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield describe_function(method)
        elif _is_hook(node):
            yield describe_function(node)


def _is_hook(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator).startswith("hookspec") for decorator in node.decorator_list
    )


def _describe_exports(module: ModuleType) -> Iterator[str]:
    """Yield every public name of a module that poolkit itself does not export, in the order of its `__all__`."""
    for name in module.__all__:
        if name not in poolkit.__all__:
            yield describe_name(module, name)


def _describe_commands(group: str) -> Iterator[str]:
    """Yield the commands of a group, each with what it says of itself and of its arguments and options."""
    commands = get_command(app)
    assert isinstance(commands, TyperGroup)
    subcommands = commands.commands[group]
    assert isinstance(subcommands, TyperGroup)
    for name, command in subcommands.commands.items():
        arguments = [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]
        options = [parameter for parameter in command.params if isinstance(parameter, TyperOption)]
        usage = " ".join([f"poolkit {group} {name}", *(argument.metavar or "" for argument in arguments)])
        rows = [(f"`{argument.metavar}`", argument.help or "") for argument in arguments]
        rows += [(f"`{', '.join((*option.opts, *option.secondary_opts))}`", option.help or "") for option in options]
        yield f"#### `{usage}`\n\n{inspect.cleandoc(command.help or '')}\n\n{table(('option', 'meaning'), *rows)}"
