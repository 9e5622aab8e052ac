"""`poolkit plugins info`: one task or plugin, as it describes itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import orjson
import typer

from poolkit.cli.options import takes_settings
from poolkit.registry import OperationInfo, PluginInfo, TaskInfo, describe_plugins
from poolkit.settings.settings import Resolved

__all__ = ["info"]

LABEL_WIDTH = 12

Schema = Mapping[str, object]


@takes_settings(model_is_positional=False, only={"enable", "disable"})
def info(
    resolved: Resolved,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A task, a plugin, or  plugin:task .")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole schemas.")] = False,
) -> None:
    """Show what a task or plugin offers and where it is defined.

    Imports that plugin and no other.
    """
    described = describe_plugins(resolved.plugins, name)
    if as_json:
        typer.echo(orjson.dumps(described, option=orjson.OPT_INDENT_2))
        return
    typer.echo("\n\n".join("\n".join(_plugin(plugin)) for plugin in described))


def _plugin(plugin: PluginInfo) -> Iterator[str]:
    yield f"{plugin.plugin} {plugin.version}"
    yield _line("status", f"{plugin.status}: {plugin.why}")
    yield _line("location", plugin.location)
    if plugin.requires_poolkit:
        yield _line("requires", f"poolkit {plugin.requires_poolkit}")
    for kind, entry_points in plugin.entries.items():
        for entry_point in entry_points:
            yield _line(kind, entry_point)
    for task in plugin.tasks:
        yield ""
        yield from _task(task)
    for module in plugin.hooks:
        yield ""
        yield "hook module"
        yield _line("entry point", module.entry_point)
        yield _line("defined at", module.defined_at)
        if module.serves:
            yield _line("serves", ", ".join(module.serves))
        for hook, place in module.hooks.items():
            yield _line(hook, place)
        yield from _fields("settings", module.settings)


def _task(task: TaskInfo) -> Iterator[str]:
    yield f"task {task.name}"
    yield _line("entry point", task.entry_point)
    yield _line("defined at", task.defined_at)
    for field, value in task.declares.items():
        yield _line(field, str(value))
    yield _line("wrapped by", ", ".join(task.wrapped_by) or "no plugin")
    yield from _fields("settings", task.settings)
    for operation in task.operations:
        yield ""
        yield from _operation(operation)


def _operation(operation: OperationInfo) -> Iterator[str]:
    yield f"operation {operation.name}"
    yield _line("processor", operation.io_processor)
    yield _line("defined at", operation.defined_at)
    for route in operation.routes:
        yield _line("route", f"POST {route}")
    yield from _fields("request", operation.request)
    yield from _fields("response", operation.response)


def _line(label: str, text: str) -> str:
    return f"  {label:<{LABEL_WIDTH}} {text}"


def _fields(title: str, schema: Schema) -> Iterator[str]:
    """Yield a line for each field of an object's schema: its name, type, and default."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        yield _line(title, "none")
        return
    required = schema.get("required")
    for position, (name, field) in enumerate(properties.items()):
        text = f"{name}: {_kind(field)}"
        if "default" in field:
            text += f" = {orjson.dumps(field['default']).decode()}"
        elif not isinstance(required, list) or name not in required:
            text += ", optional"
        yield _line("" if position else title, text)


def _kind(field: Schema) -> str:
    """Return a schema's type in a word or two."""
    for key in ("anyOf", "oneOf"):
        arms = field.get(key)
        if isinstance(arms, list):
            return " or ".join(dict.fromkeys(_kind(arm) for arm in arms))
    if "enum" in field:
        return " or ".join(orjson.dumps(value).decode() for value in _list(field["enum"]))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[-1]
    items = field.get("items")
    if field.get("type") == "array" and isinstance(items, dict) and items:
        return f"array of {_kind(items)}"
    return str(field.get("type", "any"))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
