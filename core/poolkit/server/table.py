"""The table of dialects: which are spoken at each path, in what order they are asked, and who may stand where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from poolkit.contract import Dialect
from poolkit.registry import DIALECTS, Entries, Registry, operation_paths
from poolkit.server.choice import Models
from poolkit.server.native import native_dialect
from poolkit.server.spoken_dialect import SpokenDialect

__all__ = ["Table", "build_table", "place_dialects"]

Table: TypeAlias = Mapping[str, tuple[SpokenDialect, ...]]
"""The dialects at each path."""


def build_table(models: Models, *, first: Sequence[str], is_own: Callable[[str], bool]) -> Table:
    """Return the dialects at each path, in the order in which they are asked. Paths with parameters come last.

    Args:
        models: the served models. What is enabled for one of them is spoken.
        first: as for `place_dialects`.
        is_own: likewise.

    Raises:
        PluginError, ConfigError: as `place_dialects` does, or an operation asks for a path that is taken.
    """
    table = place_dialects([served.registry for served in models.values()], first=first, is_own=is_own)
    seen = set()
    for served in models.values():
        for bound in served.operations.values():
            operation, plugin = bound.operation, bound.plugin
            key = (served.task.name, operation.name, plugin.name)
            if key in seen:
                continue
            seen.add(key)
            for path in operation.routes:
                if path in table or is_own(path):
                    raise plugin.invalid(
                        f"operation {operation.name!r} asks for the route {path!r}, which is taken. Choose another "
                        "path, or leave it out: the operation has /tasks/<task>/<operation> anyway."
                    )
            paths = operation_paths(served.task)[operation.name]
            spoken = SpokenDialect(native_dialect(operation, paths=paths), operation.name, plugin)
            for path in paths:
                table.setdefault(path, []).append(spoken)
    return {path: tuple(table[path]) for path in sorted(table, key=lambda path: "{" in path)}


def place_dialects(
    registries: Sequence[Registry], *, first: Sequence[str], is_own: Callable[[str], bool]
) -> dict[str, list[SpokenDialect]]:
    """Return the dialects of core and of the enabled plugins at each path, in the order in which they are asked.

    What only `"*"` enabled and may not stand where it wants to is left out with a warning.

    Args:
        registries: of the served models.
        first: names of entry points whose dialects are asked before all others.
        is_own: tells whether a path is one of the server's own, such as /health.

    Raises:
        PluginError: an entry cannot be imported, or a plugin claims a path that it may not have.
        ConfigError: no enabled plugin has a dialect that is named in `first`, or several plugins have one of one name.
    """
    table: dict[str, list[SpokenDialect]] = {}
    found = _find_dialects(registries, first=first)
    core = {path: one.name for one, _ in found if one.plugin.is_builtin for path in one.dialect.paths}
    for spoken, entries in found:
        problem: str | None = None
        for path in spoken.dialect.paths:
            problem = problem or _place_problem(
                spoken, path, table.get(path, ()), core=core, first=first, is_own=is_own(path)
            )
        if problem is not None:
            entries.refuse(spoken.name, spoken.plugin.invalid(f"dialect {spoken.name!r} {problem}"))
            continue
        for path in spoken.dialect.paths:
            table.setdefault(path, []).append(spoken)
    return table


def _find_dialects(registries: Sequence[Registry], *, first: Sequence[str]) -> list[tuple[SpokenDialect, Entries]]:
    """Return every dialect with the table that it is from, in the order in which they are asked."""
    tables = [registry.entries(DIALECTS) for registry in registries]
    for name in first:
        if not any(name in entries for entries in tables):
            tables[0][name]  # tells why it is not there
    found: dict[tuple[str, str], list[tuple[SpokenDialect, Entries]]] = {}
    for entries in tables:
        for name, entry in entries.items():
            plugin = entries.provider(name)
            dialects = cast("tuple[Dialect[Any, Any], ...]", entry if isinstance(entry, tuple) else (entry,))
            found[plugin.name, name] = [(SpokenDialect(dialect, name, plugin), entries) for dialect in dialects]
    ranks = {name: rank for rank, name in enumerate(first)}
    spoken = (one for dialects in found.values() for one in dialects)
    return sorted(spoken, key=lambda one: (ranks.get(one[0].name, len(ranks)), _rank(one[0])))


def _rank(spoken: SpokenDialect) -> int:
    """Return 0 for what core reads by a fingerprint, 1 for plugins' dialects, 2 for core's that read the rest."""
    if not spoken.plugin.is_builtin:
        return 1
    return 0 if spoken.dialect.matches is not None else 2


def _place_problem(
    spoken: SpokenDialect,
    path: str,
    others: Sequence[SpokenDialect],
    *,
    core: Mapping[str, str],
    first: Sequence[str],
    is_own: bool,
) -> str | None:
    """Return how a plugin's dialect would replace what is at a path, or why it would never be asked, or None."""
    if is_own:
        return f"is to be spoken at {path!r}, which is poolkit's own. Choose another path."
    if spoken.plugin.is_builtin or spoken.dialect.matches is not None or spoken.name in first:
        return None
    if path in core:
        return (
            f"would read every request at {path!r}, and poolkit's {core[path]!r} none. Give it `matches`, or let "
            f"the operator put it first: dialects = [{spoken.name!r}]."
        )
    for other in others:
        if _hides(other.dialect, spoken.dialect):
            return (
                f"would never be asked at {path!r}: {other.name!r} of {other.plugin} reads every request there. Give "
                "one `matches`."
            )
    return None


def _hides(first: Dialect[Any, Any], second: Dialect[Any, Any]) -> bool:
    """Return whether a dialect leaves nothing to another one that is asked after it."""
    is_same = first.operation == second.operation and set(first.methods) >= set(second.methods)
    return is_same and first.matches is None
