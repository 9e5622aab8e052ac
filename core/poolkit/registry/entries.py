"""Open tables: engines, model families and modules, dialects and modalities, each named by an entry point."""

from __future__ import annotations

import logging
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass

from poolkit.contract import Dialect, Modality, ModelFamily, RerankerFamily
from poolkit.errors import ConfigError, PluginError, PluginInvalidError, PoolkitError, did_you_mean
from poolkit.registry.discover import KINDS, MODELS, TASKS, EntryPoint, Plugin
from poolkit.registry.importing import check_requirement, import_object
from poolkit.registry.select import Enabled, Selection

__all__ = ["Entries", "Failure", "check_names", "load_entry"]

logger = logging.getLogger(__name__)

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
PLURALS = {"modality": "modalities", "model family": "model families"}
MODEL_KINDS = ("family", "module", "pooling", "reranker")
FUNCTIONS: Mapping[str, tuple[str, ...]] = {"engine": ("load_backbone",)}
"""The functions that an entry must have, by its kind."""
TYPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "dialect": (lambda entry: isinstance(entry, Dialect), "a poolkit.Dialect or a tuple of them"),
    "family": (lambda entry: isinstance(entry, ModelFamily), "a poolkit.ModelFamily"),
    "modality": (lambda entry: isinstance(entry, Modality), "a poolkit.Modality"),
    "module": (callable, "a function"),
    "pooling": (callable, "a function"),
    "reranker": (lambda entry: isinstance(entry, RerankerFamily), "a poolkit.RerankerFamily"),
}
"""The check of an entry, by its kind, and the words for what passes it. Of a tuple, each item is checked."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry point that cannot be used."""

    entry_point: EntryPoint
    plugin: Plugin
    error: PoolkitError

    def warn(self) -> None:
        """Log that it is left out, and why."""
        logger.warning(
            "%s %r of %s is not available: %s",
            NOUNS[self.entry_point.kind].capitalize(),
            self.entry_point.short_name,
            self.plugin,
            self.error,
            exc_info=self.error.__cause__,
        )


class Entries(Mapping[str, object]):
    """The entries of one table by name: poolkit's own first, then those of plugins in the order of enabling.

    Names are known without an import; an entry is imported when it is asked for. Asked for by its name, it is there or
    an error says why not. `items` and `values` leave out, with a warning, what only `"*"` enabled and cannot be used.
    """

    def __init__(
        self, selection: Selection, group: str, kind: str, *, failures: dict[tuple[str, EntryPoint], Failure]
    ) -> None:
        self._selection = selection
        self._failures = failures
        self._group = group
        self._kind = kind or KINDS[group]
        self._noun = NOUNS[self._kind]
        self._providers: dict[str, list[tuple[Enabled, EntryPoint]]] = {}
        for enabled in _providers(selection):
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
            PluginError: it cannot be imported, or lacks a function.
        """
        enabled, entry_point = self._find(name)
        return load_entry(entry_point, enabled, self._selection)

    def provider(self, name: str) -> Plugin:
        """Return the plugin that provides an entry, without an import. Raises ConfigError as `[name]` does."""
        return self._find(name)[0].plugin

    def refuse(self, name: str, error: PluginError) -> None:
        """Quarantine an entry that is of no use where it is needed. Raises the error unless only `"*"` enabled it."""
        enabled, entry_point = self._find(name)
        if enabled.must_load:
            raise error
        self._quarantine(Failure(entry_point, enabled.plugin, error))

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
        entries: dict[str, object] = {}
        for name, providers in self._providers.items():
            try:
                entries[name] = self[name]
            except PoolkitError as error:
                if any(enabled.must_load for enabled, _ in providers):
                    raise
                for enabled, entry_point in providers:
                    self._quarantine(Failure(entry_point, enabled.plugin, error))
        return entries

    def _quarantine(self, failure: Failure) -> None:
        key = (failure.plugin.name, failure.entry_point)
        if key not in self._failures:
            self._failures[key] = failure
            failure.warn()

    def _unknown(self, name: str) -> ConfigError:
        full_name = name if self._group in KINDS else f"{self._kind}.{name}"
        for plugin in self._selection.installed.providers(self._group, full_name):
            message = f"{self._noun} {name!r} is provided by {plugin}, which is "
            if (disabled := self._selection.disabled_plugins.get(plugin.name)) is not None:
                return ConfigError(f"{message}disabled {disabled.where}. Remove it from disable to use it.")
            return ConfigError(
                f"{message}installed but not enabled.\n"
                f'  Enable it with  enable = ["{plugin.name}"]  in poolkit.toml, or --plugin {plugin.name}.'
            )
        hint = did_you_mean(name, self._providers)
        plural = PLURALS.get(self._noun, f"{self._noun}s").capitalize()
        listing = ", ".join(sorted(self._providers)) or "none"
        return ConfigError(f"no {self._noun} named {name!r}.{hint}\n  {plural}: {listing}.")


def load_entry(entry_point: EntryPoint, enabled: Enabled, selection: Selection) -> object:
    """Import an entry and check that it is what its kind asks for.

    Raises:
        PluginError: it is for another poolkit, cannot be imported, lacks a function or is of another type.
    """
    check_requirement(enabled.plugin, selection.installed.core)
    entry = import_object(entry_point.value, enabled, entry_point=str(entry_point))
    missing = [
        function for function in FUNCTIONS.get(entry_point.kind, ()) if not callable(getattr(entry, function, None))
    ]
    if missing:
        raise PluginInvalidError(
            f"{enabled.plugin}: {NOUNS[entry_point.kind]} {entry_point.short_name!r} ({entry_point.value}) "
            f"has no function {' and no '.join(missing)}.",
            plugin=enabled.plugin.name,
        )
    is_right, wording = TYPES.get(entry_point.kind, (lambda _: True, ""))
    for part in entry if isinstance(entry, tuple) and entry_point.kind == "dialect" else (entry,):
        if not is_right(part):
            raise PluginInvalidError(
                f"{enabled.plugin}: {NOUNS[entry_point.kind]} {entry_point.short_name!r} points to an object of type "
                f"{type(part).__name__}, not to {wording}.",
                plugin=enabled.plugin.name,
            )
    if isinstance(entry, Modality) and entry.prompt.modality != entry_point.short_name:
        raise PluginInvalidError(
            f"{enabled.plugin}: entry point {entry_point.short_name!r} points to a modality named "
            f"{entry.prompt.modality!r}. Give them one name.",
            plugin=enabled.plugin.name,
        )
    return entry


def check_names(selection: Selection) -> list[PluginError]:
    """Return what is wrong with the names of the enabled plugins' entry points.

    Warns instead where only `"*"` enabled the plugin, and where a name is one of poolkit's own, which stays.
    """
    errors: list[PluginError] = []
    for enabled in selection.enabled:
        for entry_point in enabled.plugin.entry_points:
            error = _name_error(entry_point, enabled)
            if error is None:
                _warn_if_taken(entry_point, enabled, selection)
            elif enabled.must_load:
                errors.append(error)
            else:
                logger.warning("Entry point %r is not available: %s", entry_point.name, error)
    return errors


def _name_error(entry_point: EntryPoint, enabled: Enabled) -> PluginInvalidError | None:
    if entry_point.group != MODELS or (entry_point.kind in MODEL_KINDS and entry_point.short_name):
        return None
    return PluginInvalidError(
        f"{enabled.plugin}: entry point {entry_point.name!r} in group {MODELS} must be named KIND.NAME."
        f"{did_you_mean(entry_point.kind, MODEL_KINDS)} Kinds: {', '.join(MODEL_KINDS)}.",
        plugin=enabled.plugin.name,
    )


def _warn_if_taken(entry_point: EntryPoint, enabled: Enabled, selection: Selection) -> None:
    core = selection.installed.core
    if enabled.plugin.is_builtin or not core.provides(entry_point.group, entry_point.name):
        return
    if entry_point.group == TASKS and (
        core.name in selection.disabled_plugins or entry_point.name in selection.disabled_tasks
    ):
        return
    name, plugin = entry_point.short_name, enabled.plugin
    remedy = f'Choose it with  task = "{plugin.name}:{name}"' if entry_point.group == TASKS else "Give it another name"
    noun = NOUNS[entry_point.kind].capitalize()
    logger.warning("%s %r of %s does not replace the built-in one. %s.", noun, name, plugin, remedy)


def _providers(selection: Selection) -> Iterator[Enabled]:
    """Yield who fills the tables: poolkit, whose own entries stay when its tasks are disabled, and the plugins."""
    yield Enabled(selection.installed.core, None)
    yield from (enabled for enabled in selection.enabled if enabled.named is not None)
