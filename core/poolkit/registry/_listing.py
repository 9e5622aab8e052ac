"""The rows of `poolkit plugins list` and `GET /tasks`: what there is, whether it is used, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from poolkit.errors import PluginError
from poolkit.registry._discovery import HOOKS, TASKS, EntryPoint, Plugin
from poolkit.registry._selection import Selection

__all__ = ["Row", "Status", "list_entry_points"]


class Status(StrEnum):
    """Whether an entry point is used; MISSING is a plugin that was named and has none."""

    ENABLED = "enabled"
    INSTALLED = "installed"
    DISABLED = "disabled"
    QUARANTINED = "quarantined"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Row:
    """One entry point, as texts. `task` is empty for a plugin that has hooks or engines and no task."""

    status: Status
    task: str
    plugin: str
    version: str
    entry_point: str
    why: str


def list_entry_points(
    selection: Selection, failures: Mapping[tuple[str, EntryPoint], PluginError] | None = None
) -> tuple[Row, ...]:
    """Return a row for each task and hook module, and for each engine of a plugin that has neither. Imports nothing.

    Args:
        selection: what is installed and enabled.
        failures: why an entry point is quarantined, by plugin name, where the plugins have been loaded.
    """
    rows = []
    for plugin in selection.installed.plugins:
        for entry_point in (*plugin.in_group(TASKS), *plugin.in_group(HOOKS)) or plugin.entry_points:
            failure = (failures or {}).get((plugin.name, entry_point))
            status, why = (
                _judge(selection, plugin, entry_point) if failure is None else (Status.QUARANTINED, str(failure))
            )
            task = entry_point.name if entry_point.group == TASKS else ""
            rows.append(Row(status, task, plugin.name, plugin.version, entry_point.value, why))
    missing = [error for error in selection.errors if isinstance(error, PluginError)]
    return (*rows, *(Row(Status.MISSING, "", error.plugin, "", "", str(error).splitlines()[0]) for error in missing))


def _judge(selection: Selection, plugin: Plugin, entry_point: EntryPoint) -> tuple[Status, str]:
    disabled = selection.disabled_plugins.get(plugin.name)
    if disabled is None and entry_point.group == TASKS:
        disabled = selection.disabled_tasks.get(entry_point.name)
    if disabled is not None:
        return Status.DISABLED, f"disabled {disabled.where}"
    for enabled in selection.enabled:
        if enabled.plugin == plugin:
            return Status.ENABLED, "built in" if enabled.named is None else f"enabled {enabled.named.where}"
    return Status.INSTALLED, f"not enabled; --plugin {plugin.name} enables it"
