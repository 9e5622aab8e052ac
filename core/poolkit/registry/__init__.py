"""Find the plugins, the tasks that they provide, and the one task that a model serves, with its behavior.

    discover ──► select ──► load ──► get_pooling_task ──► bind

Each step is a function from one frozen record to the next, in a module of its own; `Registry` strings them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from poolkit.registry import resolve
from poolkit.registry.bind import BoundOperation, BoundTask, bind
from poolkit.registry.call import Observe
from poolkit.registry.describe import OperationInfo, PluginInfo, TaskInfo, describe
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
from poolkit.registry.entries import Entries, Failure
from poolkit.registry.hooks import HookModule
from poolkit.registry.load import Loaded, LoadedTask, enable_server, load, try_all
from poolkit.registry.run import Running, RunWrapper, start_run
from poolkit.registry.select import Row, Status, list_rows, not_found, select

if TYPE_CHECKING:
    from poolkit.config import PluginConfig
    from poolkit.contract import EngineProvider, PoolingTask, PromptEncoder
    from poolkit.models import ModelInfo

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
    "start_run",
]


@dataclass(frozen=True, slots=True)
class Registry:
    """The enabled tasks and hook modules, imported and checked, and the open tables."""

    loaded: Loaded
    _entry_failures: dict[tuple[str, EntryPoint], Failure] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, config: PluginConfig, *, needs: Sequence[str] = ()) -> Registry:
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
        return cls(loaded)

    @property
    def tasks(self) -> tuple[LoadedTask, ...]:
        """The tasks of the enabled plugins, poolkit's first."""
        return self.loaded.tasks

    @property
    def hooks(self) -> tuple[HookModule, ...]:
        """The hook modules of the enabled plugins, in the order in which these were enabled."""
        return self.loaded.hooks

    @property
    def quarantined(self) -> tuple[Failure, ...]:
        """Entry points that only `"*"` enabled and that cannot be used; of open tables, as far as they were read."""
        return (*self.loaded.quarantined, *self._entry_failures.values())

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
        return Entries(self.loaded.selection, group, kind, failures=self._entry_failures)

    def import_engine(self, name: str) -> EngineProvider:
        """Import the provider of the engine of that name.

        Raises:
            ConfigError: no enabled plugin provides it, or several do.
            PluginError: it cannot be imported.
        """
        return cast("EngineProvider", self.entries(ENGINES)[name])

    def supported_tasks(self, model: ModelInfo) -> tuple[str, ...]:
        """Return the names of the enabled tasks that the model can serve, best first."""
        return resolve.supported_tasks(self.loaded, model)

    def tasks_offering(self, operation: str, model: ModelInfo | None = None) -> tuple[str, ...]:
        """Return the names of the enabled tasks that offer an operation, poolkit's own first.

        If a model is given, those that it can serve, best first.
        """
        return resolve.tasks_offering(self.loaded, operation, model)

    def unsupported_reasons(self, model: ModelInfo) -> dict[str, str]:
        """Return the names of the enabled tasks that the model cannot serve, each with why it cannot."""
        return resolve.unsupported_reasons(self.loaded, model)

    def get_pooling_task(
        self, supported_tasks: Sequence[str], task: str | None = None, *, model: ModelInfo | None = None
    ) -> PoolingTask:
        """Return the one task to serve: `task` ("name" or "plugin:name"), by default the first that is enabled.

        Raises:
            TaskError: no enabled plugin provides it, several do, or the model cannot serve it.
            PluginError: the plugin in "plugin:name" is not installed.
        """
        return resolve.get_pooling_task(self.loaded, supported_tasks, task, model=model)

    def bind(self, task: PoolingTask, model: ModelInfo, encoder: PromptEncoder) -> BoundTask:
        """Return the task with its settings and processors, ready to answer requests for the model.

        Raises:
            PluginError: a setting is wrong, or a processor cannot be imported or created, or breaks the contract.
            ConfigError: a hook module refuses a setting of the operator's that it serves.
            StartupError: several of these at once.
        """
        return bind(self.loaded, task, model, encoder)

    def rows(self) -> tuple[Row, ...]:
        """Return the installed entry points, and whether each is used; what is quarantined is told."""
        failures = {(failure.plugin.name, failure.entry_point): failure.error for failure in self.quarantined}
        return list_rows(self.loaded.selection, failures)


def list_plugins(config: PluginConfig, *, loads: bool = False) -> tuple[Row, ...]:
    """Return the installed entry points, and whether each would be used.

    Args:
        config: which plugins are enabled.
        loads: import those that are enabled, and tell which of them fail. By default no plugin is imported.
    """
    selection = select(discover(), config)
    return list_rows(selection, try_all(selection) if loads else None)


def load_hook_modules(config: PluginConfig) -> tuple[HookModule, ...]:
    """Import the enabled plugins that have hook modules, and no other, and return those.

    Raises:
        PluginError: a plugin that was named is not installed or cannot be used.
        ConfigError: `disable` or the settings name what is not there.
        StartupError: several of these at once.
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
