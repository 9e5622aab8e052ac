"""Step 2: apply `enable` and `disable` to the installed plugins. Imports no plugin."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import importlib_metadata
from packaging.utils import canonicalize_name

from poolkit.config import PluginConfig, Reference
from poolkit.errors import (
    ConfigError,
    PluginInvalidError,
    PluginNotFoundError,
    PoolkitError,
    UnknownTaskError,
    did_you_mean,
)
from poolkit.registry.discover import CORE, GROUPS, NOUNS, TASKS, EntryPoint, Installed, Plugin

__all__ = ["Enabled", "Selection", "no_such_name", "no_such_task", "not_found", "select"]

ALL = "*"


@dataclass(frozen=True, slots=True)
class Enabled:
    """A plugin in use, and what enabled it: None for poolkit itself."""

    plugin: Plugin
    reference: Reference | None

    @property
    def must_load(self) -> bool:
        """True if its failure stops the start-up: not for a plugin that only `"*"` enabled."""
        return self.reference is None or self.reference.name != ALL


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
    disabled_plugins: Mapping[str, Reference]
    disabled_tasks: Mapping[str, Reference]
    settings: Mapping[str, Mapping[str, object]]
    errors: tuple[PoolkitError, ...]

    def disabled_task(self, entry_point: EntryPoint) -> Reference | None:
        """Return where the task of that name was disabled, or None if it was not, or the entry point is no task's."""
        return self.disabled_tasks.get(entry_point.name) if entry_point.group == TASKS else None

    def explain_absence(self, subject: str, providers: Sequence[Plugin]) -> str:
        """Return why nothing enabled provides what these installed plugins would provide, and what to do about it."""
        able = [plugin for plugin in providers if plugin.name not in self.disabled_plugins]
        if not able:
            where = self.disabled_plugins[providers[0].name].where
            return (
                f"{subject} is provided by {providers[0]}, which is disabled {where}. Remove it from disable to use it."
            )
        which = "which is" if len(able) == 1 else "which are"
        return (
            f"{subject} is provided by {' and '.join(map(str, able))}, {which} installed but not enabled.\n"
            f'  Enable it with  enable = ["{able[0].name}"]  in poolkit.toml, or --plugin {able[0].name}.'
        )


def select(installed: Installed, config: PluginConfig) -> Selection:
    """Choose the built-in tasks minus `disable`, plus the plugins named, plus all of them for `"*"`."""
    errors: list[PoolkitError] = []
    disabled_plugins: dict[str, Reference] = {}
    disabled_tasks: dict[str, Reference] = {}
    for reference in config.disable:
        plugin = installed.find(reference.name)
        is_full_name = plugin is not None and plugin.name == canonicalize_name(reference.name)
        if reference.name in installed.names(TASKS) and not is_full_name:
            disabled_tasks[reference.name] = reference
        elif plugin is not None:
            disabled_plugins[plugin.name] = reference
        else:
            errors.append(
                ConfigError(
                    f"{reference.name!r}, disabled {reference.where}, is neither a task nor a plugin that is installed."
                    f"{_suggest_any(reference.name, installed)}"
                )
            )

    chosen = {CORE: Enabled(installed.core, None)}
    for reference in config.enable:
        plugin = installed.find(reference.name)
        if plugin is not None:
            chosen.setdefault(plugin.name, Enabled(plugin, reference))
        elif reference.name != ALL:
            errors.append(not_found(reference.name, f"enabled {reference.where}", installed))
    for reference in config.enable:
        if reference.name == ALL:
            for plugin in installed.plugins:
                chosen.setdefault(plugin.name, Enabled(plugin, reference))

    settings: dict[str, Mapping[str, object]] = {}
    for name, values in config.settings.items():
        plugin = installed.find(name)
        if plugin is not None:
            settings[plugin.name] = {**settings.get(plugin.name, {}), **values}
        else:
            errors.append(
                ConfigError(
                    f"[plugins.{name}]: no plugin of that name is installed."
                    f"{_owner(name, installed) or _near_plugin(name, installed)}\n  {_list_installed(installed)}"
                )
            )

    return Selection(
        installed=installed,
        enabled=tuple(enabled for name, enabled in chosen.items() if name not in disabled_plugins),
        disabled_plugins=disabled_plugins,
        disabled_tasks=disabled_tasks,
        settings=settings,
        errors=tuple(errors),
    )


def not_found(name: str, where: str, installed: Installed) -> PoolkitError:
    """Return the error for a plugin that is not installed, or is installed and no plugin. `where` says who named it."""
    distribution = next((each for each in (name, f"{CORE}-{name}") if _is_distribution(each)), None)
    hint = _owner(name, installed)
    if distribution is not None and not hint:
        return PluginInvalidError(
            f"{distribution}, {where}, is installed but is no plugin: it has no entry point in "
            f"{', '.join(GROUPS[:-1])} or {GROUPS[-1]}.",
            plugin=distribution,
        )
    hint = hint or _near_plugin(name, installed)
    remedy = "" if hint else f"Install it with  python -m pip install {name}.  "
    return PluginNotFoundError(
        f"plugin {name!r}, {where}, is not installed in {sys.prefix}.{hint}\n  {remedy}{_list_installed(installed)}",
        plugin=name,
    )


def no_such_task(plugin: Plugin, name: str) -> UnknownTaskError:
    """Return the error for a task that the plugin it was named with does not provide."""
    names = [entry.name for entry in plugin.in_group(TASKS)]
    return UnknownTaskError(
        f"{plugin} has no task named {name!r}.{did_you_mean(name, names)}\n  Its tasks: {', '.join(names) or 'none'}.",
        task=name,
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


def _suggest_any(name: str, installed: Installed) -> str:
    tasks = sorted(installed.names(TASKS))
    hint = did_you_mean(name, tasks) or _owner(name, installed) or _near_plugin(name, installed)
    return f"{hint}\n  Tasks: {', '.join(tasks)}.  {_list_installed(installed)}"


def _owner(name: str, installed: Installed) -> str:
    """Return whose entry point has that name: "torch" is no plugin, but an engine."""
    found = [
        (plugin, entry) for plugin in installed.plugins for entry in plugin.entry_points if entry.short_name == name
    ]
    if not found:
        return ""
    noun = NOUNS.get(found[0][1].kind, "entry point")
    article = "an" if noun.startswith("e") else "a"
    owners = ", ".join(dict.fromkeys(str(plugin) for plugin, _ in found))
    return f" {name!r} is {article} {noun} of {owners}: name the plugin."


def _near_plugin(name: str, installed: Installed) -> str:
    """Compare what follows the common prefix, which would make any two plugins look alike."""
    prefix = f"{CORE}-"
    known = [
        plugin.name.removeprefix(prefix) for plugin in installed.plugins if not plugin.is_builtin or "-" not in name
    ]
    return did_you_mean(canonicalize_name(name).removeprefix(prefix), known)


def _list_installed(installed: Installed) -> str:
    return f"Installed plugins: {', '.join(map(str, installed.plugins))}."
