"""Open tables: engines, model families and modules, dialects and modalities, each entry named by an entry point."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView

from poolkit.errors import ConfigError, PluginError, PoolkitError, did_you_mean
from poolkit.registry.discover import KINDS, NOUNS, EntryPoint, Plugin
from poolkit.registry.entries import Failure, load_entry
from poolkit.registry.select import Enabled, Selection

__all__ = ["Entries"]

PLURALS = {"modality": "modalities", "model family": "model families"}


class Entries(Mapping[str, object]):
    """The entries of one table by name: poolkit's own first, then those of plugins in the order of enabling.

    Names are known without an import; an entry is imported when it is asked for. Asked for by its name, it is there or
    an error says why not. `items` and `values` leave out, with a warning, what only `"*"` enabled and cannot be used.
    """

    def __init__(self, selection: Selection, group: str, kind: str, *, quarantined: list[Failure]) -> None:
        self._selection = selection
        self._quarantined = quarantined
        self._group = group
        self._kind = kind or KINDS[group]
        self._noun = NOUNS[self._kind]
        self._providers: dict[str, list[tuple[Enabled, EntryPoint]]] = {}
        core = Enabled(selection.installed.core, None)  # its own entries stay when its tasks are disabled
        for enabled in (core, *(enabled for enabled in selection.enabled if enabled.reference is not None)):
            for entry_point in enabled.plugin.in_group(group):
                if entry_point.kind == self._kind:
                    self._providers.setdefault(entry_point.short_name, []).append((enabled, entry_point))

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
            PluginError: it cannot be imported, or is not what its kind asks for.
        """
        enabled, entry_point = self._find(name)
        return load_entry(entry_point, enabled, self._selection.installed.core)

    def find(self, name: str) -> object | None:
        """Import an entry, or set it aside with a warning and return None where it cannot be used.

        Raises ConfigError and PluginError as `[name]` does unless only `"*"` enabled it.
        """
        try:
            return self[name]
        except PoolkitError as error:
            providers = self._providers[name]
            if any(enabled.must_load for enabled, _ in providers):
                raise
            for enabled, entry_point in providers:
                self._set_aside(Failure(entry_point, enabled, error))
            return None

    def is_core(self, name: str) -> bool:
        """Return whether an entry is one of poolkit's own, without an import."""
        return self._providers[name][0][0].plugin.is_builtin

    def provider(self, name: str) -> Plugin:
        """Return the plugin that provides an entry, without an import. Raises ConfigError as `[name]` does."""
        return self._find(name)[0].plugin

    def refuse(self, name: str, error: PluginError) -> None:
        """Quarantine an entry that is of no use where it is needed. Raises the error unless only `"*"` enabled it."""
        enabled, entry_point = self._find(name)
        if enabled.must_load:
            raise error
        self._set_aside(Failure(entry_point, enabled, error))

    def items(self) -> ItemsView[str, object]:
        """Import and return all entries, but for those that only `"*"` enabled and that cannot be used."""
        return self._load_all().items()

    def values(self) -> ValuesView[object]:
        """Import and return all entries, but for those that only `"*"` enabled and that cannot be used."""
        return self._load_all().values()

    def _find(self, name: str) -> tuple[Enabled, EntryPoint]:
        candidates = self._providers.get(name, [])
        if not candidates:
            raise self._unknown(name)
        if len(candidates) > 1 and not candidates[0][0].plugin.is_builtin:
            plugins = ", ".join(str(enabled.plugin) for enabled, _ in candidates)
            raise ConfigError(
                f"{self._noun} {name!r} is provided by {len(candidates)} enabled plugins: {plugins}. Keep one."
            )
        return candidates[0]

    def _load_all(self) -> dict[str, object]:
        found = {name: self.find(name) for name in self._providers}
        return {name: entry for name, entry in found.items() if entry is not None}

    def _set_aside(self, failure: Failure) -> None:
        """Quarantine an entry and tell so, once: several tables and models may meet it."""
        known = {(known.plugin.name, known.entry_point) for known in self._quarantined}
        if (failure.plugin.name, failure.entry_point) not in known:
            self._quarantined.append(failure)
            failure.warn()

    def _unknown(self, name: str) -> ConfigError:
        full_name = name if self._group in KINDS else f"{self._kind}.{name}"
        if providers := self._selection.installed.providers(self._group, full_name):
            return ConfigError(self._selection.explain_absence(f"{self._noun} {name!r}", providers))
        hint = did_you_mean(name, self._providers)
        plural = PLURALS.get(self._noun, f"{self._noun}s").capitalize()
        listing = ", ".join(sorted(self._providers)) or "none"
        return ConfigError(f"no {self._noun} named {name!r}.{hint}\n  {plural}: {listing}.")
