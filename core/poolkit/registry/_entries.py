"""Open tables: engines, model families and modules, dialects and modalities, each named by an entry point."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from poolkit.errors import (
    ConfigError,
    PluginIncompatibleError,
    PluginInvalidError,
    PoolkitError,
    did_you_mean,
)
from poolkit.registry._discovery import DIALECTS, ENGINES, MODALITIES, MODELS, EntryPoint, Plugin
from poolkit.registry._importing import import_object
from poolkit.registry._selection import Enabled, Selection

__all__ = ["Entries", "check_names", "check_requirement", "noun_of", "warn_of_taken_names"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Table:
    """The words for one open table, and what its entries must have.

    Attributes:
        noun: an entry, as messages call it.
        plural: several of them.
        functions: what an entry must be able to do.
    """

    noun: str
    plural: str
    functions: tuple[str, ...] = ()


TABLES: Mapping[tuple[str, str], Table] = {
    (ENGINES, ""): Table("engine", "engines", functions=("load_engine",)),
    (DIALECTS, ""): Table("dialect", "dialects"),
    (MODALITIES, ""): Table("modality", "modalities"),
    (MODELS, "family"): Table("model family", "model families"),
    (MODELS, "module"): Table("module", "modules"),
    (MODELS, "pooling"): Table("pooling mode", "pooling modes"),
    (MODELS, "reranker"): Table("reranker", "rerankers"),
}
"""Every open table, by its group of entry points and the kind in front of the dot of their names."""


class Entries(Mapping[str, object]):
    """The entries of one table by name: poolkit's own first, then those of plugins in the order of enabling.

    Names are known without an import; an entry is imported when it is asked for. Asked for by its name, it is there or
    an error says why not. `items` and `values` leave out, with a warning, what only `"*"` enabled and cannot be used.
    """

    def __init__(self, selection: Selection, group: str, kind: str = "") -> None:
        self._selection = selection
        self._table = TABLES[group, kind]
        self._group = group
        self._kind = kind
        self._providers: dict[str, list[tuple[Enabled, EntryPoint]]] = {}
        for enabled in _providers(selection):
            for entry_point in enabled.plugin.in_group(group):
                name = _name_in(entry_point, kind)
                if name is not None:
                    self._providers.setdefault(name, []).append((enabled, entry_point))

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._providers)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._providers)

    def __contains__(self, name: object) -> bool:
        """Return whether there is an entry of that name, without an import."""
        return name in self._providers

    def __getitem__(self, name: str) -> object:
        """Import an entry.

        Raises:
            ConfigError: no enabled plugin has an entry of that name, or several have.
            PluginError: it cannot be imported, or lacks a function.
        """
        enabled, entry_point = self._find(name)
        check_requirement(enabled.plugin, self._selection.installed.core)
        entry = import_object(entry_point.value, enabled, entry_point=str(entry_point))
        missing = [function for function in self._table.functions if not callable(getattr(entry, function, None))]
        if missing:
            raise PluginInvalidError(
                f"{enabled.plugin}: {self._table.noun} {name!r} ({entry_point.value}) has no function "
                f"{' and no '.join(missing)}.",
                plugin=enabled.plugin.name,
            )
        return entry

    def provider(self, name: str) -> Plugin:
        """Return who provides an entry, without an import. Raises ConfigError as `[name]` does."""
        enabled, _ = self._find(name)
        return enabled.plugin

    def items(self) -> ItemsView[str, object]:
        """Import and return all entries, but for those that only `"*"` enabled and that cannot be used."""
        return self._load_all().items()

    def values(self) -> ValuesView[object]:
        """Import and return all entries, but for those that only `"*"` enabled and that cannot be used."""
        return self._load_all().values()

    def _load_all(self) -> dict[str, object]:
        entries: dict[str, object] = {}
        for name, providers in self._providers.items():
            try:
                entries[name] = self[name]
            except PoolkitError as error:
                if any(enabled.must_load for enabled, _ in providers):
                    raise
                logger.warning("%s %r is not available: %s", self._table.noun.capitalize(), name, error)
        return entries

    def _find(self, name: str) -> tuple[Enabled, EntryPoint]:
        candidates = self._providers.get(name, [])
        if not candidates:
            raise self._unknown(name)
        if len(candidates) > 1 and not candidates[0][0].plugin.is_builtin:
            plugins = ", ".join(str(enabled.plugin) for enabled, _ in candidates)
            raise ConfigError(
                f"{self._table.noun} {name!r} is provided by {len(candidates)} enabled plugins: {plugins}. Keep one."
            )
        return candidates[0]

    def _unknown(self, name: str) -> ConfigError:
        noun, plural = self._table.noun, self._table.plural
        full_name = f"{self._kind}.{name}" if self._kind else name
        for plugin in self._selection.installed.providers(self._group, full_name):
            if plugin.name in self._selection.disabled_plugins:
                where = self._selection.disabled_plugins[plugin.name].where
                return ConfigError(
                    f"{noun} {name!r} is provided by {plugin}, which is disabled {where}. "
                    "Remove it from disable to use it."
                )
            return ConfigError(
                f"{noun} {name!r} is provided by {plugin}, which is installed but not enabled.\n"
                f'  Enable it with  enable = ["{plugin.name}"]  in poolkit.toml, or --plugin {plugin.name}.'
            )
        hint = did_you_mean(name, self._providers)
        listing = ", ".join(sorted(self._providers)) or "none"
        return ConfigError(f"no {noun} named {name!r}.{hint}\n  {plural.capitalize()}: {listing}.")


def _name_in(entry_point: EntryPoint, kind: str) -> str | None:
    """Return an entry point's name within its kind ("module.Dense" is the module "Dense"), or None if of another."""
    if not kind:
        return entry_point.name
    found, _, name = entry_point.name.partition(".")
    return name if found == kind and name else None


def check_requirement(plugin: Plugin, core: Plugin) -> None:
    """Raise PluginIncompatibleError if the plugin was written for another poolkit: its import may fail in odd ways."""
    if not SpecifierSet(plugin.requires_poolkit).contains(core.version, prereleases=True):
        raise PluginIncompatibleError(
            f"{plugin} needs poolkit {plugin.requires_poolkit}; {core} is running. Install versions that fit.",
            plugin=plugin.name,
        )


def check_names(selection: Selection) -> Iterator[PluginInvalidError]:
    """Yield what is wrong with the names of the enabled plugins' entries; warn where only `"*"` enabled the plugin."""
    kinds = [kind for group, kind in TABLES if group == MODELS]
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.in_group(MODELS):
            if noun_of(entry_point) is not None:
                continue
            kind = entry_point.name.partition(".")[0]
            error = PluginInvalidError(
                f"{enabled.plugin}: entry point {entry_point.name!r} in group {MODELS} must be named KIND.NAME."
                f"{did_you_mean(kind, kinds)} Kinds: {', '.join(kinds)}.",
                plugin=enabled.plugin.name,
            )
            if enabled.must_load:
                yield error
            else:
                logger.warning("Entry point %r is not available: %s", entry_point.name, error)


def warn_of_taken_names(selection: Selection) -> None:
    """Log each entry of a plugin that has the name of one of poolkit's own, which it does not replace."""
    core = selection.installed.core
    for enabled in selection.enabled:
        for entry_point in () if enabled.plugin.is_builtin else enabled.plugin.entry_points:
            noun = noun_of(entry_point)
            if noun is not None and core.provides(entry_point.group, entry_point.name):
                logger.warning(
                    "%s %r of %s does not replace the built-in one. Give it a name of its own.",
                    noun.capitalize(),
                    entry_point.name,
                    enabled.plugin,
                )


def noun_of(entry_point: EntryPoint) -> str | None:
    """Return what messages call the entry, or None if it is of no open table."""
    kind, _, name = entry_point.name.partition(".") if entry_point.group == MODELS else ("", "", "any")
    table = TABLES.get((entry_point.group, kind))
    return table.noun if table is not None and name else None


def _providers(selection: Selection) -> Iterator[Enabled]:
    """Yield who fills the tables: poolkit, whose own entries stay when its tasks are disabled, and the plugins."""
    yield Enabled(selection.installed.core, None)
    yield from (enabled for enabled in selection.enabled if enabled.named is not None)
