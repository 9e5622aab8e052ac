"""The installed entry points and the state of each, as `poolkit plugins list` and `GET /tasks` show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from poolkit.errors import PluginError
from poolkit.registry.discover import TASKS, EntryPoint, Plugin
from poolkit.registry.entries import Failure
from poolkit.registry.select import Enabled, Selection

__all__ = ["Row", "Status", "list_rows"]


class Status(StrEnum):
    """The state of an entry point.

    MISSING: a name was given that is that of nothing installed. FAILED: it cannot be loaded, which stops a start-up.
    QUARANTINED: it cannot be loaded, and only `"*"` enabled it.
    """

    ENABLED = "enabled"
    INSTALLED = "installed"
    DISABLED = "disabled"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Row:
    """One entry point.

    Attributes:
        kind: "task", "hooks", "engine", "dialect", "modality", or the kind of an entry of `poolkit.models`.
        name: of the entry point, without its kind.
    """

    status: Status
    kind: str
    name: str
    plugin: str
    version: str
    entry_point: str
    why: str


def list_rows(selection: Selection, failures: Iterable[Failure] = ()) -> tuple[Row, ...]:
    """Return a row for each entry point, and for each name that was given and is that of nothing. Imports nothing.

    Args:
        selection: what is installed and enabled.
        failures: those of entry points that cannot be used, where the plugins have been loaded.
    """
    enabled = {enabled.plugin.name: enabled for enabled in selection.enabled}
    failed = {(failure.plugin.name, failure.entry_point): failure for failure in failures}
    rows = []
    for plugin in selection.installed.plugins:
        for entry in plugin.entry_points:
            if (failure := failed.get((plugin.name, entry))) is not None:
                status = Status.FAILED if failure.enabled.must_load else Status.QUARANTINED
                why = str(failure.error)
            else:
                status, why = _state(selection, plugin, entry, enabled.get(plugin.name))
            rows.append(Row(status, entry.kind, entry.short_name, plugin.name, plugin.version, entry.value, why))
    for error in selection.errors:
        plugin_name = error.plugin if isinstance(error, PluginError) else ""
        rows.append(Row(Status.MISSING, "", "", plugin_name, "", "", str(error).splitlines()[0]))
    return tuple(rows)


def _state(selection: Selection, plugin: Plugin, entry: EntryPoint, enabled: Enabled | None) -> tuple[Status, str]:
    if plugin.is_builtin and entry.group != TASKS:
        return Status.ENABLED, "built in"
    disabled = selection.disabled_plugins.get(plugin.name) or selection.disabled_task(entry)
    if disabled is not None:
        return Status.DISABLED, f"disabled {disabled.where}"
    if enabled is None:
        return Status.INSTALLED, f"not enabled; --plugin {plugin.name} enables it"
    return Status.ENABLED, "built in" if enabled.reference is None else f"enabled {enabled.reference.where}"
