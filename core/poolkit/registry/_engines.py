"""Finds what runs a model, by name: an entry point in group `poolkit.engines` of poolkit or an enabled plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from poolkit.errors import ConfigError, PluginInvalidError, did_you_mean
from poolkit.registry._discovery import ENGINES, EntryPoint
from poolkit.registry._importing import import_object
from poolkit.registry._selection import Enabled, Selection

if TYPE_CHECKING:
    from poolkit.contract import EngineProvider

__all__ = ["import_engine"]

FUNCTIONS = ("load_engine",)


def import_engine(selection: Selection, name: str) -> EngineProvider:
    """Import what provides an engine. poolkit's own engines keep their names, and stay when its tasks are disabled.

    Raises:
        ConfigError: no enabled plugin has an engine of that name, or several have.
        PluginError: it cannot be imported, or lacks a function.
    """
    core = Enabled(selection.installed.core, None)
    engines: dict[str, list[tuple[Enabled, EntryPoint]]] = {}
    for enabled in (core, *(other for other in selection.enabled if other.named is not None)):
        for entry_point in enabled.plugin.in_group(ENGINES):
            engines.setdefault(entry_point.name, []).append((enabled, entry_point))
    candidates = engines.get(name)
    if candidates is None:
        raise _unknown(selection, name, sorted(engines))
    enabled, entry_point = candidates[0]
    if len(candidates) > 1 and not enabled.plugin.is_builtin:
        providers = ", ".join(str(other.plugin) for other, _ in candidates)
        raise ConfigError(f"engine {name!r} is provided by {len(candidates)} enabled plugins: {providers}. Keep one.")
    provider = import_object(entry_point.value, enabled, entry_point=str(entry_point))
    lacking = [function for function in FUNCTIONS if not callable(getattr(provider, function, None))]
    if lacking:
        raise PluginInvalidError(
            f"{enabled.plugin}: engine {name!r} ({entry_point.value}) has no function {' and no '.join(lacking)}.",
            plugin=enabled.plugin.name,
        )
    return cast("EngineProvider", provider)


def _unknown(selection: Selection, name: str, known: list[str]) -> ConfigError:
    providers = selection.installed.providers(ENGINES, name)
    if providers:
        plugin = providers[0]
        return ConfigError(
            f"engine {name!r} is provided by {plugin}, which is installed but not enabled.\n"
            f'  Enable it with  enable = ["{plugin.name}"]  in poolkit.toml, or --plugin {plugin.name}.'
        )
    return ConfigError(f"no engine named {name!r}.{did_you_mean(name, known)}\n  Engines: {', '.join(known)}.")
