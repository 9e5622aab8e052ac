"""Writes the parts of the docs that the code already says: settings, errors, statuses, the reference for plugins.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test fails when one is out of date;
`make docs` brings them up to date.
"""

from __future__ import annotations

import inspect
import logging
import re
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path

from plugin_reference import reference_parts
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sections import table
from typer.core import TyperGroup
from typer.main import get_command

from poolkit import errors
from poolkit.cli.main import app
from poolkit.server.failures import describe
from poolkit.settings.settings import Settings
from poolkit.validation import nested_model
from poolkit_plugins import cache, chunking

__all__ = ["PAGES", "generated"]

PAGES = sorted(Path(__file__).parent.glob("*.md"))

PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)

ANSWERED = (
    errors.RequestError(""),
    errors.OverloadedError("", retry_after_s=1),
    errors.ClosedError(""),
    errors.HookError("", plugin="poolkit", task="embed", hook="pre_process"),
    errors.EngineError(""),
)
"""The errors that can be raised while a request is served."""


def generated(page: str) -> str:
    """Return the text of a page with its generated parts as they should be."""
    parts = {
        "settings": _settings(),
        "plugin_settings": _settings(only={"task", "enable", "disable", "plugins"}),
        "errors": _error_tree(),
        "statuses": _statuses(),
        "cache": _own_settings(cache.Settings),
        "chunking": _own_settings(chunking.Settings),
        **reference_parts(),
    }
    return PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n\n{match[3]}", page)


def _settings(only: Collection[str] = frozenset(Settings.model_fields)) -> str:
    prefix = Settings.model_config["env_prefix"]
    delimiter = Settings.model_config["env_nested_delimiter"] or ""
    commands = get_command(app)
    assert isinstance(commands, TyperGroup)
    options = {param.name: param.opts[0] for param in commands.commands["serve"].params if param.opts[0][0] == "-"}
    rows = []
    for path, field in _fields(Settings):
        if path[0] not in only:
            continue
        option = options.get("__".join(path))
        names = (".".join(path), option or "", f"{prefix}{delimiter.join(path).upper()}", _default(field))
        rows.append((*(f"`{name}`" if name else "" for name in names), field.description or ""))
    return table(("setting", "option", "environment variable", "default", "meaning"), *rows)


def _own_settings(model: type[BaseModel]) -> str:
    rows = [(f"`{name}`", _default(field), field.description or "") for name, field in model.model_fields.items()]
    return table(("setting", "default", "meaning"), *rows)


def _error_tree() -> str:
    lines = (inspect.getdoc(errors) or "").splitlines()
    tree = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    return f"```text\n{tree}\n```"


def _statuses() -> str:
    rows = []
    for error in ANSWERED:
        failure = describe(error, request_id="")
        headers = ", ".join(f"`{name}`" for name in failure.headers)
        name = type(error).__name__
        rows.append((f"`{name}`", str(int(failure.status)), f"`{failure.kind}`", f"`{failure.code}`", headers))
    return table(("raised", "status", "`type`", "`code`", "headers"), *rows)


def _fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in model.model_fields.items():
        nested = nested_model(field.annotation)
        if nested is None:
            yield (*path, name), field
        else:
            yield from _fields(nested, (*path, name))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value in ((), {}) else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    logging.disable()  # the failures that are described were made up
    for path in PAGES:
        path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")
