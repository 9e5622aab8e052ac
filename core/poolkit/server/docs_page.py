"""The page at /docs: every route with its fields and an example to paste, without scripts, from anywhere."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from poolkit.server.schema import Document

__all__ = ["write_docs"]

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font-size:.9em;background:#8881;border-radius:.3em}pre{padding:.7em;overflow:auto}"
    "table{border-collapse:collapse}td{padding:.2em 1em .2em 0;vertical-align:top}"
    "summary{cursor:pointer;font-weight:600}details{border-top:1px solid #8885;padding:.5rem 0}"
)


def write_docs(document: Document, *, root: str) -> str:
    """Return an OpenAPI document as a page in HTML. `root` is the path that the app is mounted at."""
    info = document["info"]
    sections = [
        section
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for section in _write_operation(document, method.upper(), path, operation, root)
    ]
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title><style>{STYLE}</style>',
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            f"<p>{escape(info['summary'])}</p>",
            f'<p>For programs: <a href="{escape(root)}/openapi.json">openapi.json</a>.</p>',
            *sections,
            "</html>",
        )
    )


def _write_operation(document: Document, method: str, path: str, operation: Document, root: str) -> Iterator[str]:
    yield f"<details><summary>{method} <code>{escape(root + path)}</code> {escape(operation['summary'])}</summary>"
    description = inspect.cleandoc(operation["description"])
    if description:
        yield f"<p>{escape(description)}</p>"
    for schema in _bodies(document, operation):
        yield "<table>"
        for name, field in schema.get("properties", {}).items():
            needed = " (required)" if name in schema.get("required", ()) else ""
            yield f"<tr><td><code>{escape(name)}</code>{needed}<td>{escape(field.get('description', ''))}"
        yield "</table>"
        for example in schema.get("examples", ())[:1]:
            yield f"<pre>curl {escape(root + path)} -d {escape(_quote(example))}</pre>"
    yield "</details>"


def _bodies(document: Document, operation: Document) -> Iterator[Document]:
    """Yield the schema of each body that an operation takes."""
    if "requestBody" not in operation:
        return
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    for body in schema.get("anyOf", [schema]):
        yield document["components"]["schemas"][body["$ref"].rpartition("/")[2]]


def _quote(example: object) -> str:
    """Return an example as an argument of a shell."""
    text = json.dumps(example, ensure_ascii=False)
    return "'" + text.replace("'", "'\\''") + "'"
