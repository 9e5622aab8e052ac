"""Writes the generated parts of plugin-reference.md: what the code and its docstrings say of the plugin contract."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import TypeGuard

from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

import poolkit
import poolkit.testing
from poolkit.cli.main import app
from poolkit.contract import encoder, hooks, model_info, model_specs, outputs, params, prompts, task

__all__ = ["reference_parts", "table"]

CONTRACT = (prompts, params, outputs, task, hooks, encoder, model_info, model_specs)
"""The modules of the contract, in the order of the page."""

SECTION = re.compile(r"^(Args|Raises):\n((?: {4}.*(?:\n|\Z))+)", flags=re.MULTILINE)
ENTRY = re.compile(r"^ {4}\S.*(?:\n {8}.+)*", flags=re.MULTILINE)
"""One name of a section, with what is said of it."""


def reference_parts() -> dict[str, str]:
    """Return the text of each part by its name."""
    body = [node for module in CONTRACT for node in ast.parse(inspect.getsource(module)).body]
    classes = (node for node in body if isinstance(node, ast.ClassDef) and not any(map(_is_hook, node.body)))
    records = [node for node in classes if node.name in poolkit.__all__]
    return {
        "hooks": _sections(_describe_hooks(body)),
        "records": _sections(_describe_record(node) for node in records if isinstance(node, ast.ClassDef)),
        "testing": _sections(_describe_exports(poolkit.testing)),
        "commands": _sections(_describe_commands("plugins")),
    }


def table(*rows: tuple[str, ...]) -> str:
    """Return rows of cells as a table, the first row as its head."""
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    head, *body = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


def _sections(sections: Iterator[str]) -> str:
    return "\n\n".join(sections)


def _describe_hooks(body: list[ast.stmt]) -> Iterator[str]:
    """Yield every hook, those of a class below what the class says of them."""
    for node in body:
        if isinstance(node, ast.ClassDef) and any(map(_is_hook, node.body)):
            yield f"### `{node.name}`\n\n{_docstring(node)}"
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield _describe_function(method)
        elif _is_hook(node):
            yield _describe_function(node)


def _is_hook(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator).startswith("hookspec") for decorator in node.decorator_list
    )


def _describe_record(node: ast.ClassDef) -> str:
    """Return a class that holds data: a row per field, or per value of an enumeration."""
    description, _, attributes = _docstring(node).partition("Attributes:\n")
    entries = (" ".join(entry.split()) for entry in ENTRY.findall(attributes))
    meanings = dict(entry.split(": ", 1) for entry in entries)
    rows = [
        (
            f"`{field.target.id}`",
            f"`{ast.unparse(field.annotation)}`",
            _default(field.value),
            meanings.get(field.target.id, ""),
        )
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
    values = [
        (f"`{ast.unparse(value.targets[0])}`", f"`{ast.unparse(value.value)}`")
        for value in node.body
        if isinstance(value, ast.Assign) and isinstance(value.value, ast.Constant)
    ]
    fields = [table(("field", "type", "default", "meaning"), *rows)] if rows else []
    members = [table(("name", "value"), *values)] if values else []
    return "\n\n".join([f"### `{node.name}`", description.strip(), *fields, *members])


def _default(value: ast.expr | None) -> str:
    """Return a field's default; what a factory makes is shown as the call of the factory."""
    if value is None:
        return ""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        factory = next((one.value for one in value.keywords if one.arg == "default_factory"), None)
        return f"`{ast.unparse(factory)}()`" if factory is not None else ""
    return f"`{ast.unparse(value)}`"


def _describe_exports(module: ModuleType) -> Iterator[str]:
    """Yield every public function and class of a module, in alphabetical order."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            node = _definition(value)
            yield _describe_record(node) if isinstance(node, ast.ClassDef) else _describe_function(node)


def _definition(value: type | FunctionType) -> ast.ClassDef | ast.FunctionDef:
    [node] = ast.parse(inspect.getsource(value)).body
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return node


def _describe_function(node: ast.FunctionDef) -> str:
    arguments = re.sub(r"^self(, )?", "", ast.unparse(node.args))
    returns = ast.unparse(node.returns) if node.returns else "None"
    return f"#### `{node.name}({arguments}) -> {returns}`\n\n{_docstring(node)}"


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    """Return a docstring with its sections of names as lists."""
    text = ast.get_docstring(node) or ""
    return SECTION.sub(lambda match: f"{match[1]}:\n\n{_items(match[2])}\n", text).strip()


def _items(section: str) -> str:
    entries = (" ".join(text.split()) for text in ENTRY.findall(section))
    return "\n".join(f"* `{names}`: {meaning}" for names, meaning in (entry.split(": ", 1) for entry in entries))


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
