"""Writes the section of one public name: what the definition and the docstring say of a class, function or value."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from types import ModuleType
from typing import TypeAlias

from pydantic import BaseModel

__all__ = ["describe_function", "describe_name", "describe_record", "docstring", "home_of", "table"]

SECTION = re.compile(r"^(Args|Attributes|Raises):\n((?: {4}.*(?:\n|\Z)|\n(?= {4}))+)", flags=re.MULTILINE)
ENTRY = re.compile(r"^ {4}\S.*(?:\n {8}.+)*", flags=re.MULTILINE)
"""One name of a section, with what is said of it."""
EXAMPLE = re.compile(r"^>>> (?:.+\n)+(?=\n|\Z)|^>>> (?:.+\n?)+\Z", flags=re.MULTILINE)

Definition: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign


def table(*rows: tuple[str, ...]) -> str:
    """Return rows of cells as a table, the first row as its head."""
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    head, *body = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


def describe_name(module: ModuleType, name: str) -> str:
    """Return the section of a name that a module exports, wherever it is defined."""
    home, node, comment = _definition(module.__name__, name)
    if isinstance(node, ast.FunctionDef):
        return describe_function(node)
    if isinstance(node, ast.ClassDef):
        value = getattr(importlib.import_module(home), name)
        fields = _model_fields(value) if issubclass(value, BaseModel) else None
        heading, described = describe_record(node, fields=fields).split("\n\n", 1)
        body = [each for ancestor in _ancestors(value) for each in ancestor.body]
        return "\n\n".join([heading, *_construction(node.name, body), described, *_methods(body)])
    code = ast.unparse(node)
    return "\n\n".join([f"### `{name}`", *([comment] if comment else []), f"```text\n{code}\n```"])


def home_of(module: ModuleType, name: str) -> str:
    """Return the name of the module that defines what a module exports."""
    return _definition(module.__name__, name)[0]


def describe_record(node: ast.ClassDef, *, fields: list[tuple[str, ...]] | None = None) -> str:
    """Return a class that holds data: a row per field, or per value of an enumeration.

    Args:
        node: the definition of the class.
        fields: its fields as rows of name, type, default and meaning, where the definition does not hold all of them.
    """
    description, _, attributes = docstring(node, keeps_attributes=True).partition("Attributes:\n")
    entries = (" ".join(entry.split()) for entry in ENTRY.findall(attributes))
    meanings = dict(entry.split(": ", 1) for entry in entries)
    rows = fields or [
        (
            f"`{field.target.id}`",
            f"`{ast.unparse(field.annotation)}`",
            _default(field.value),
            meanings.get(field.target.id, ""),
        )
        for field in node.body
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and field.target.id[0] != "_"
        and not ast.unparse(field.annotation).startswith("ClassVar")
    ]
    values = [
        (f"`{ast.unparse(value.targets[0])}`", f"`{ast.unparse(value.value)}`")
        for value in node.body
        if isinstance(value, ast.Assign) and isinstance(value.value, ast.Constant)
    ]
    parts = [table(("field", "type", "default", "meaning"), *rows)] if rows else []
    members = [table(("name", "value"), *values)] if values else []
    return "\n\n".join([f"### `{node.name}`", description.strip(), *parts, *members])


def describe_function(node: ast.FunctionDef) -> str:
    """Return a function with its signature and its docstring."""
    return f"#### `{_signature(node)}`\n\n{docstring(node)}"


def docstring(node: ast.ClassDef | ast.FunctionDef, *, keeps_attributes: bool = False) -> str:
    """Return a docstring with its sections of names as lists; those of attributes stay as they are where they may."""
    text = ast.get_docstring(node) or ""

    def listed(match: re.Match[str]) -> str:
        is_kept = keeps_attributes and match[1] == "Attributes"
        return match[0] if is_kept else f"{match[1]}:\n\n{_items(match[2])}\n"

    return EXAMPLE.sub(lambda match: f"```pycon\n{match[0].strip()}\n```\n", SECTION.sub(listed, text)).strip()


def _items(section: str) -> str:
    entries = (" ".join(text.split()) for text in ENTRY.findall(section))
    return "\n".join(f"* `{names}`: {meaning}" for names, meaning in (entry.split(": ", 1) for entry in entries))


def _signature(node: ast.FunctionDef) -> str:
    arguments = re.sub(r"^self(, )?", "", ast.unparse(node.args))
    returns = ast.unparse(node.returns) if node.returns else "None"
    return f"{node.name}({arguments}) -> {returns}"


def _ancestors(value: type) -> list[ast.ClassDef]:
    """Return the definitions of a class and of those of poolkit's that it inherits from, itself first."""
    homes = [each for each in value.__mro__ if each.__module__.partition(".")[0] == "poolkit"]
    found = (_definition(each.__module__, each.__name__)[1] for each in homes)
    return [node for node in found if isinstance(node, ast.ClassDef)]


def _construction(name: str, body: list[ast.stmt]) -> list[str]:
    """Return how an object is made, where its class says so itself."""
    made = [each for each in body if isinstance(each, ast.FunctionDef) and each.name == "__init__"][:1]
    return [f"`{_signature(each).replace('__init__', name, 1).removesuffix(' -> None')}`" for each in made]


def _methods(body: list[ast.stmt]) -> list[str]:
    """Return the public methods and properties of a class, and how it is called where that is described."""
    found: dict[str, str] = {}
    for method in body:
        if not isinstance(method, ast.FunctionDef) or not ast.get_docstring(method) or method.name in found:
            continue
        if method.name.startswith("_") and method.name != "__call__":
            continue
        is_property = any(ast.unparse(each) in ("property", "cached_property") for each in method.decorator_list)
        returns = ast.unparse(method.returns) if method.returns else "None"
        shown = f"{method.name}: {returns}" if is_property else _signature(method)
        found[method.name] = f"`{shown}`\n\n{docstring(method)}"
    return list(found.values())


def _model_fields(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """Return a row for each field of a pydantic model, those that it inherits included."""
    annotations: dict[str, str] = {}
    for ancestor in reversed([each for each in model.__mro__ if issubclass(each, BaseModel) and each is not BaseModel]):
        body = _parse(ancestor.__module__).body
        nodes = (node for node in body if isinstance(node, ast.ClassDef) and node.name == ancestor.__name__)
        for field in (each for node in nodes for each in node.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                annotations[field.target.id] = ast.unparse(field.annotation)
    rows = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if field.is_required() else f"`{default!r}`"
        rows.append((f"`{name}`", f"`{annotations.get(name, '')}`", shown, field.description or ""))
    return rows


def _default(value: ast.expr | None) -> str:
    """Return a field's default; what a factory makes is shown as the call of the factory."""
    if value is None:
        return ""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        factory = next((each.value for each in value.keywords if each.arg == "default_factory"), None)
        return f"`{ast.unparse(factory)}()`" if factory is not None else ""
    return f"`{ast.unparse(value)}`"


def _definition(module: str, name: str) -> tuple[str, Definition, str]:
    """Return where a name is defined, its definition, and the string that stands below it in place of a docstring."""
    body = _parse(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        comment = str(after.value.value) if is_text else ""
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node, comment
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return module, node, comment
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return module, node, comment
    for node in ast.walk(_parse(module)):
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
            return _definition(str(node.module), original)
    raise LookupError(f"{module} does not define {name}")


@cache
def _parse(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))
