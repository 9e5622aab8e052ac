"""Step 1: read what is installed from the metadata of distributions. Imports no plugin."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import importlib_metadata
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from poolkit.errors import PluginInvalidError, PluginNotFoundError

__all__ = [
    "CORE",
    "DIALECTS",
    "ENGINES",
    "GROUPS",
    "HOOKS",
    "MODALITIES",
    "MODELS",
    "NOUNS",
    "TASKS",
    "EntryPoint",
    "Installed",
    "Plugin",
    "discover",
]

logger = logging.getLogger(__name__)

CORE = "poolkit"
TASKS = "poolkit.tasks"
HOOKS = "poolkit.plugins"
ENGINES = "poolkit.engines"
MODELS = "poolkit.models"
DIALECTS = "poolkit.dialects"
MODALITIES = "poolkit.modalities"
KINDS = {TASKS: "task", HOOKS: "hooks", ENGINES: "engine", DIALECTS: "dialect", MODALITIES: "modality"}
NOUNS = {
    "task": "task",
    "hooks": "hook module",
    "engine": "engine",
    "dialect": "dialect",
    "modality": "modality",
    "family": "model family",
    "module": "module",
    "pooling": "pooling mode",
    "reranker": "reranker",
}
"""The words for an entry point in messages, by its kind."""
GROUPS = (TASKS, HOOKS, ENGINES, MODELS, DIALECTS, MODALITIES)


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One line of a distribution's entry_points.txt."""

    group: str
    name: str
    value: str

    def __str__(self) -> str:
        """Return the line as its author wrote it."""
        return f"{self.name} = {self.value}"

    @property
    def kind(self) -> str:
        """Return what it provides: "task", "engine"; in poolkit.models what its name says in front of the dot."""
        return KINDS.get(self.group) or self.name.partition(".")[0]

    @property
    def short_name(self) -> str:
        """Return the name without the kind: "Dense" of the entry point "module.Dense"."""
        return self.name if self.group in KINDS else self.name.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed distribution with entry points for poolkit.

    Each hook module of poolkit's own distribution is a plugin by itself, so that it can be enabled alone: the entry
    point `chunking` is the plugin poolkit-chunking, of poolkit's version.

    Attributes:
        name: the normalised distribution name, which pip keeps unique.
        version: its version.
        location: the folder it is installed in.
        requires_poolkit: the versions of poolkit that it asks for, as a version specifier; empty for any.
        entry_points: ordered by group and name.
        is_part_of_poolkit: True for poolkit itself and for each of its hook modules.
    """

    name: str
    version: str
    location: Path
    requires_poolkit: str
    entry_points: tuple[EntryPoint, ...]
    is_part_of_poolkit: bool

    def __str__(self) -> str:
        """Return name and version, as every message shows a plugin."""
        return f"{self.name} {self.version}"

    @property
    def is_builtin(self) -> bool:
        """Return True for poolkit itself."""
        return self.name == CORE

    def in_group(self, group: str) -> tuple[EntryPoint, ...]:
        """Return the entry points of one group."""
        return tuple(entry for entry in self.entry_points if entry.group == group)

    def provides(self, group: str, name: str) -> bool:
        """Return whether there is an entry point of that name."""
        return any(entry.name == name for entry in self.in_group(group))

    def invalid(self, problem: str) -> PluginInvalidError:
        """Return the error that says how the plugin breaks the contract."""
        return PluginInvalidError(f"{self}: {problem}", plugin=self.name)


@dataclass(frozen=True, slots=True)
class Installed:
    """Every installed plugin, poolkit itself included, ordered by name."""

    plugins: tuple[Plugin, ...]

    @property
    def core(self) -> Plugin:
        """poolkit itself."""
        return next(plugin for plugin in self.plugins if plugin.is_builtin)

    def find(self, name: str) -> Plugin | None:
        """Return the plugin of that name; "gliner" finds poolkit-gliner."""
        by_name = {plugin.name: plugin for plugin in self.plugins}
        full_name = canonicalize_name(name)
        return by_name.get(full_name) or by_name.get(f"{CORE}-{full_name}")

    def providers(self, group: str, name: str) -> tuple[Plugin, ...]:
        """Return the plugins that have an entry point of that name."""
        return tuple(plugin for plugin in self.plugins if plugin.provides(group, name))

    def names(self, group: str) -> frozenset[str]:
        """Return the name of every entry point in a group."""
        return frozenset(entry.name for plugin in self.plugins for entry in plugin.in_group(group))


def discover() -> Installed:
    """Read what is installed. The first distribution of a name on `sys.path` counts, as it does for imports.

    Raises:
        PluginNotFoundError: poolkit's own metadata is missing, and its tasks with it.
    """
    found: dict[str, tuple[importlib_metadata.Distribution, list[EntryPoint]]] = {}
    for entry in importlib_metadata.entry_points():
        if entry.group not in GROUPS or entry.dist is None:
            continue
        try:
            name = canonicalize_name(entry.dist.name)
        except FileNotFoundError as error:  # a half-removed installation
            logger.warning("Skipped entry point %s = %s: %s", entry.name, entry.value, error)
            continue
        _, entries = found.setdefault(name, (entry.dist, []))
        entries.append(EntryPoint(entry.group, entry.name, entry.value))
    if CORE not in found:
        raise PluginNotFoundError(
            f"poolkit's own metadata is not installed in {sys.prefix}, so its tasks cannot be found.\n"
            "  Install it with  python -m pip install poolkit,  or from a checkout  python -m pip install -e .",
            plugin=CORE,
        )
    plugins = {name: _read_plugin(name, *found[name]) for name in found}
    for part in _split(plugins[CORE]):
        if part.name in plugins and part.name != CORE:
            logger.warning("Skipped %s: poolkit has a plugin of that name.", plugins[part.name])
        plugins[part.name] = part
    return Installed(tuple(plugins[name] for name in sorted(plugins)))


def _split(core: Plugin) -> Iterable[Plugin]:
    """Yield poolkit without its hook modules, and each of these as a plugin."""
    yield replace(core, entry_points=tuple(entry for entry in core.entry_points if entry.group != HOOKS))
    for entry_point in core.in_group(HOOKS):
        yield replace(core, name=canonicalize_name(f"{CORE}-{entry_point.name}"), entry_points=(entry_point,))


def _read_plugin(name: str, dist: importlib_metadata.Distribution, entries: Iterable[EntryPoint]) -> Plugin:
    return Plugin(
        name=name,
        version=dist.version,
        location=Path(str(dist.locate_file(""))),
        requires_poolkit=_read_requirement(dist.requires or []),
        entry_points=tuple(sorted(entries, key=lambda entry: (GROUPS.index(entry.group), entry.name))),
        is_part_of_poolkit=name == CORE,
    )


def _read_requirement(lines: Iterable[str]) -> str:
    specifiers = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonicalize_name(requirement.name) == CORE and applies and requirement.specifier:
            specifiers.append(str(requirement.specifier))
    return ",".join(specifiers)
