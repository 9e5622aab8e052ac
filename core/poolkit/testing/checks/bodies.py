"""Requests and responses as JSON: finds the places of values, and puts other values there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

__all__ = ["Body", "Path", "paths", "put", "show_path", "texts_in", "value_at"]

Body: TypeAlias = dict[str, object]
Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


def paths(value: object, at: Path = ()) -> Iterator[Path]:
    """Yield where every value in a body stands, nested ones too."""
    if at:
        yield at
    children: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    for step, child in children:
        yield from paths(child, (*at, step))


def value_at(value: object, path: Path) -> object:
    """Return the value that stands there."""
    found: Any = value
    for step in path:
        found = found[step]
    return found


def put(body: Body, path: Path, value: object) -> Body:
    """Return a copy of a body with another value there."""
    changed = copy.deepcopy(body)
    parent: Any = value_at(changed, path[:-1])
    parent[path[-1]] = value
    return changed


def texts_in(value: object) -> Iterator[Path]:
    """Yield where the texts of a value stand; the empty path if it is one itself."""
    if isinstance(value, str):
        yield ()
    yield from (path for path in paths(value) if isinstance(value_at(value, path), str))


def show_path(path: Path) -> str:
    """Return a path as people write it: "queries[0].text"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
