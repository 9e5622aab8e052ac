"""Find the plugins, the tasks that they provide, and the one task that a model serves, with its behavior.

    discover ──► select ──► load ──► get_pooling_task ──► bind

Each step is a function from one frozen record to the next, in a module of its own; `Registry` strings them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

from poolkit.config import PluginConfig
from poolkit.contract import Modality, ModalityPrompt
from poolkit.registry import bind, resolve
from poolkit.registry.bind import BoundOperation, BoundTask
from poolkit.registry.call import Observe
from poolkit.registry.describe import OperationInfo, PluginInfo, TaskInfo, describe, operation_paths
from poolkit.registry.discover import (
    DIALECTS,
    ENGINES,
    HOOKS,
    MODALITIES,
    MODELS,
    TASKS,
    EntryPoint,
    Plugin,
    discover,
)
from poolkit.registry.entries import Failure
from poolkit.registry.hooks import HookModule
from poolkit.registry.listing import Row, Status, list_rows
from poolkit.registry.load import Loaded, LoadedTask, enable_server, load, try_all
from poolkit.registry.run import Running, RunWrapper, start_run
from poolkit.registry.select import not_found, select
from poolkit.registry.tables import Entries

__all__ = [
    "DIALECTS",
    "ENGINES",
    "HOOKS",
    "MODALITIES",
    "MODELS",
    "TASKS",
    "BoundOperation",
    "BoundTask",
    "Entries",
    "EntryPoint",
    "Failure",
    "HookModule",
    "LoadedTask",
    "Observe",
    "OperationInfo",
    "Plugin",
    "PluginInfo",
    "Registry",
    "Row",
    "RunWrapper",
    "Running",
    "Status",
    "TaskInfo",
    "describe_plugins",
    "find_plugin",
    "list_plugins",
    "load_hook_modules",
    "operation_paths",
    "start_run",
]


@dataclass(frozen=True, slots=True)
class Registry(Loaded):
    """The enabled tasks and hook modules, imported and checked, and the open tables."""

    @classmethod
    def load(cls, config: PluginConfig, *, needs: Sequence[str] = ()) -> Self:
        """Find the installed plugins and import those that are enabled.

        Args:
            config: which plugins are enabled.
            needs: fields of `PoolerConfig` that a hook module must serve. Where no enabled one does, a part of poolkit
                that serves it is enabled.

        Raises:
            PluginError: a plugin that was named is not installed or cannot be used.
            ConfigError: `disable` or the settings name what is not there, or nothing serves what is needed.
            StartupError: several of these at once.
        """
        loaded = load(select(discover(), config))
        for needed in needs:
            loaded = enable_server(loaded, needed)
        return cls(loaded.selection, loaded.tasks, loaded.hooks, loaded.quarantined)

    def entries(self, group: str, kind: str = "") -> Entries:
        """Return an open table: the entries of poolkit and the enabled plugins, by name, each imported when asked for.

            registry.entries("poolkit.engines")["torch"]
            for name, family in registry.entries("poolkit.models", "family").items(): ...

        poolkit's own come first, then those of plugins in the order of enabling. An unknown name, one that several
        plugins provide and an entry that cannot be used are told by an error. Over all of them (`items`, `values`),
        what only `"*"` enabled and cannot be used is left out with a warning.

        Args:
            group: of entry points: `DIALECTS`, `ENGINES`, `MODALITIES` or `MODELS`.
            kind: of `MODELS`, what stands in front of the dot: "family", "module", "pooling" or "reranker".
        """
        return Entries(self.selection, group, kind, quarantined=self.quarantined)

    @property
    def modalities(self) -> Mapping[str, Modality[ModalityPrompt]]:
        """The table of modalities by name."""
        return cast("Mapping[str, Modality[ModalityPrompt]]", self.entries(MODALITIES))

    supported_tasks = resolve.supported_tasks
    tasks_offering = resolve.tasks_offering
    unsupported_reasons = resolve.unsupported_reasons
    get_pooling_task = resolve.get_pooling_task
    bind = bind.bind

    def rows(self) -> tuple[Row, ...]:
        """Return the installed entry points, and whether each is used; what is quarantined is told."""
        return list_rows(self.selection, self.quarantined)


def list_plugins(config: PluginConfig, *, loads: bool = False) -> tuple[Row, ...]:
    """Return the installed entry points, and whether each would be used.

    Args:
        config: which plugins are enabled.
        loads: import those that are enabled, and tell which of them fail. By default no plugin is imported.
    """
    selection = select(discover(), config)
    return list_rows(selection, try_all(selection) if loads else ())


def load_hook_modules(config: PluginConfig) -> tuple[HookModule, ...]:
    """Import the enabled plugins that have hook modules, and no other, and return those.

    Raises PluginError, ConfigError and StartupError as `Registry.load` does.
    """
    selection = select(discover(), config)
    enabled = tuple(enabled for enabled in selection.enabled if enabled.plugin.in_group(HOOKS))
    return load(replace(selection, enabled=enabled)).hooks


def describe_plugins(config: PluginConfig, name: str) -> tuple[PluginInfo, ...]:
    """Import and describe the plugin of that name, or each that provides the task of that name, and no other.

    Raises:
        PluginError: there is none, or it cannot be loaded.
        StartupError: several of its entry points cannot be loaded.
    """
    return describe(select(discover(), config), name)


def find_plugin(name: str, *, named: str) -> Plugin:
    """Return an installed plugin, from metadata alone; `named` says by what it was named, for the message.

    Raises:
        PluginError: it is not installed, or is no plugin.
    """
    installed = discover()
    plugin = installed.find(name)
    if plugin is None:
        raise not_found(name, named, installed)
    return plugin
