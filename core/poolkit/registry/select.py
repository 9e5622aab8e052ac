"""Step 2: apply `enable` and `disable` to the installed plugins, and list the outcome. Imports no plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import importlib_metadata
from packaging.utils import canonicalize_name

from poolkit.config import Named, PluginConfig
from poolkit.errors import (
    ConfigError,
    PluginError,
    PluginInvalidError,
    PluginNotFoundError,
    PoolkitError,
    did_you_mean,
)
from poolkit.registry.discover import CORE, GROUPS, TASKS, EntryPoint, Installed, Plugin

__all__ = ["Enabled", "Row", "Selection", "Status", "list_rows", "no_such_name", "not_found", "select"]

ALL = "*"


@dataclass(frozen=True, slots=True)
class Enabled:
    """A plugin in use, and what enabled it: None for poolkit itself."""

    plugin: Plugin
    named: Named | None

    @property
    def must_load(self) -> bool:
        """True if its failure stops the start-up: not for a plugin that only `"*"` enabled."""
        return self.named is None or self.named.name != ALL


@dataclass(frozen=True, slots=True)
class Selection:
    """The installed plugins, and which of them are used.

    Attributes:
        installed: all of them.
        enabled: the plugins in use, poolkit first, then in the order they were named.
        disabled_plugins: by plugin name, where each was disabled.
        disabled_tasks: by task name, where each was disabled.
        settings: by plugin name.
        errors: names that mean nothing; raised together with the failures of loading.
    """

    installed: Installed
    enabled: tuple[Enabled, ...]
    disabled_plugins: Mapping[str, Named]
    disabled_tasks: Mapping[str, Named]
    settings: Mapping[str, Mapping[str, object]]
    errors: tuple[PoolkitError, ...]


def select(installed: Installed, config: PluginConfig) -> Selection:
    """Choose the built-in tasks minus `disable`, plus the plugins named, plus all of them for `"*"`."""
    errors: list[PoolkitError] = []
    disabled_plugins: dict[str, Named] = {}
    disabled_tasks: dict[str, Named] = {}
    for named in config.disable:
        plugin = installed.find(named.name)
        is_full_name = plugin is not None and plugin.name == canonicalize_name(named.name)
        if named.name in installed.names(TASKS) and not is_full_name:
            disabled_tasks[named.name] = named
        elif plugin is not None:
            disabled_plugins[plugin.name] = named
        else:
            errors.append(_not_disabled(named, installed))

    chosen = {CORE: Enabled(installed.core, None)}
    for named in config.enable:
        plugin = installed.find(named.name)
        if plugin is not None:
            chosen.setdefault(plugin.name, Enabled(plugin, named))
        elif named.name != ALL:
            errors.append(not_found(named.name, f"enabled {named.where}", installed))
    for named in config.enable:
        if named.name == ALL:
            for plugin in installed.plugins:
                chosen.setdefault(plugin.name, Enabled(plugin, named))

    settings: dict[str, Mapping[str, object]] = {}
    for name, values in config.settings.items():
        plugin = installed.find(name)
        if plugin is None:
            errors.append(_no_such_table(name, installed))
        else:
            settings[plugin.name] = {**settings.get(plugin.name, {}), **values}

    return Selection(
        installed=installed,
        enabled=tuple(enabled for name, enabled in chosen.items() if name not in disabled_plugins),
        disabled_plugins=disabled_plugins,
        disabled_tasks=disabled_tasks,
        settings=settings,
        errors=tuple(errors),
    )


class Status(StrEnum):
    """The state of an entry point.

    MISSING: its plugin was named and is not installed. FAILED: it cannot be loaded, which stops a start-up.
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
    """One entry point, as `poolkit plugins list` and `GET /tasks` show it.

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


def list_rows(
    selection: Selection, failures: Mapping[tuple[str, EntryPoint], PoolkitError] | None = None
) -> tuple[Row, ...]:
    """Return a row for each entry point, and for each plugin that was named and is missing. Imports nothing.

    Args:
        selection: what is installed and enabled.
        failures: why an entry point cannot be used, by plugin name, where the plugins have been loaded.
    """
    return (*_rows(selection, failures or {}), *_missing_rows(selection))


def _rows(selection: Selection, failures: Mapping[tuple[str, EntryPoint], PoolkitError]) -> Iterator[Row]:
    by_plugin = {enabled.plugin.name: enabled for enabled in selection.enabled}
    for plugin in selection.installed.plugins:
        enabled = by_plugin.get(plugin.name)
        for entry_point in plugin.entry_points:
            status, why = _judge(selection, plugin, entry_point, enabled)
            if (failure := failures.get((plugin.name, entry_point))) is not None:
                is_swept_in = enabled is not None and not enabled.must_load
                status, why = Status.QUARANTINED if is_swept_in else Status.FAILED, str(failure)
            yield Row(
                status, entry_point.kind, entry_point.short_name, plugin.name, plugin.version, entry_point.value, why
            )


def _missing_rows(selection: Selection) -> Iterator[Row]:
    for error in selection.errors:
        if isinstance(error, PluginError):
            yield Row(Status.MISSING, "", "", error.plugin, "", "", str(error).splitlines()[0])


def _judge(
    selection: Selection, plugin: Plugin, entry_point: EntryPoint, enabled: Enabled | None
) -> tuple[Status, str]:
    disabled = selection.disabled_plugins.get(plugin.name)
    if disabled is None and entry_point.group == TASKS:
        disabled = selection.disabled_tasks.get(entry_point.name)
    if plugin.is_builtin and entry_point.group != TASKS:
        return Status.ENABLED, "built in"
    if disabled is not None:
        return Status.DISABLED, f"disabled {disabled.where}"
    if enabled is None:
        return Status.INSTALLED, f"not enabled; --plugin {plugin.name} enables it"
    return Status.ENABLED, "built in" if enabled.named is None else f"enabled {enabled.named.where}"


def not_found(name: str, where: str, installed: Installed) -> PoolkitError:
    """Return the error for a plugin that is not installed, or is installed and no plugin. `where` says who named it."""
    for candidate in (name, f"{CORE}-{name}"):
        if _is_distribution(candidate):
            return PluginInvalidError(
                f"{candidate}, {where}, is installed but is no plugin: it has no entry point in "
                f"{', '.join(GROUPS[:-1])} or {GROUPS[-1]}.",
                plugin=candidate,
            )
    providers = installed.providers(TASKS, name)
    if providers:
        hint = f" {name!r} is a task of {', '.join(map(str, providers))}: name the plugin."
    else:
        hint = _suggest_plugin(name, installed)
    return PluginNotFoundError(
        f"plugin {name!r}, {where}, is not installed in {sys.prefix}.{hint}\n"
        f"  Install it with  python -m pip install {name}.  {_list_installed(installed)}",
        plugin=name,
    )


def no_such_name(name: str, installed: Installed) -> PluginNotFoundError:
    """Return the error for a name that is neither a task's nor a plugin's."""
    return PluginNotFoundError(
        f"no task or plugin named {name!r} is installed.{_suggest_any(name, installed)}", plugin=name
    )


def _is_distribution(name: str) -> bool:
    try:
        importlib_metadata.distribution(name)
    except (importlib_metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
        return False
    return True


def _not_disabled(named: Named, installed: Installed) -> ConfigError:
    return ConfigError(
        f"{named.name!r}, disabled {named.where}, is neither a task nor a plugin that is installed."
        f"{_suggest_any(named.name, installed)}"
    )


def _no_such_table(name: str, installed: Installed) -> ConfigError:
    return ConfigError(
        f"[plugins.{name}]: no plugin of that name is installed.{_suggest_plugin(name, installed)}\n"
        f"  {_list_installed(installed)}"
    )


def _suggest_any(name: str, installed: Installed) -> str:
    tasks = sorted(installed.names(TASKS))
    hint = did_you_mean(name, tasks) or _suggest_plugin(name, installed)
    return f"{hint}\n  Tasks: {', '.join(tasks)}.  {_list_installed(installed)}"


def _suggest_plugin(name: str, installed: Installed) -> str:
    """Compare what follows the common prefix, which would make any two plugins look alike."""
    prefix = f"{CORE}-"
    known = [plugin.name.removeprefix(prefix) for plugin in installed.plugins if not plugin.is_builtin]
    return did_you_mean(canonicalize_name(name).removeprefix(prefix), known)


def _list_installed(installed: Installed) -> str:
    return f"Installed plugins: {', '.join(map(str, installed.plugins))}."
