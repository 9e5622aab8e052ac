"""Which tasks there are, which one a model serves, and its behaviour.

    discover ──► select ──► load ──► get_pooling_task ──► bind

Each step is a function from one frozen record to the next, in a module of its own; `Registry` strings them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolkit.registry import _resolution
from poolkit.registry._binding import BoundTask, bind
from poolkit.registry._discovery import Plugin, discover
from poolkit.registry._engines import load_engine
from poolkit.registry._hooks import BoundOperation
from poolkit.registry._listing import Row, Status, list_entry_points
from poolkit.registry._loading import Loaded, LoadedTask, load
from poolkit.registry._selection import select

if TYPE_CHECKING:
    from poolkit.config import PluginConfig
    from poolkit.contract import PoolingTask
    from poolkit.engine import EngineFactory
    from poolkit.models import ModelInfo

__all__ = ["BoundOperation", "BoundTask", "LoadedTask", "Plugin", "Registry", "Row", "Status", "list_plugins"]


@dataclass(frozen=True, slots=True)
class Registry:
    """The enabled tasks, imported and checked."""

    loaded: Loaded

    @classmethod
    def load(cls, config: PluginConfig) -> Registry:
        """Find the installed plugins and import those that are enabled.

        Raises:
            PluginError: a plugin that was named is not installed or cannot be used.
            ConfigError: `disable` or the settings name what is not there.
            StartupError: several of these at once.
        """
        return cls(load(select(discover(), config)))

    @property
    def tasks(self) -> tuple[LoadedTask, ...]:
        """What the enabled plugins provide, poolkit first."""
        return self.loaded.tasks

    def supported_tasks(self, model: ModelInfo) -> tuple[str, ...]:
        """Return the names of the enabled tasks that the model can serve, best first."""
        return _resolution.supported_tasks(self.loaded, model)

    def get_pooling_task(
        self, supported_tasks: Sequence[str], task: str | None = None, *, model: ModelInfo | None = None
    ) -> PoolingTask:
        """Return the one task to serve: `task` ("name" or "plugin:name"), by default the first that is enabled.

        Raises:
            TaskError: no enabled plugin provides it, several do, or the model cannot serve it.
            PluginError: the plugin in "plugin:name" is not installed.
        """
        return _resolution.get_pooling_task(self.loaded, supported_tasks, task, model=model)

    def bind(self, task: PoolingTask, model: ModelInfo) -> BoundTask:
        """Return the task with its settings and processors, ready to answer requests for the model.

        Raises:
            PluginError: a setting is wrong, or a processor cannot be imported or created, or breaks the contract.
            StartupError: several of these at once.
        """
        return bind(self.loaded, task, model)

    def load_engine(self, name: str) -> EngineFactory:
        """Import what makes the engine of that name.

        Raises:
            ConfigError: no enabled plugin provides it, or several do.
            PluginError: it cannot be imported.
        """
        return load_engine(self.loaded.selection, name)

    def rows(self) -> tuple[Row, ...]:
        """Return what there is and whether it is used, the tasks that failed to load among it."""
        failures = {(failure.plugin.name, failure.entry_point): failure.error for failure in self.loaded.quarantined}
        return list_entry_points(self.loaded.selection, failures)


def list_plugins(config: PluginConfig) -> tuple[Row, ...]:
    """Return what is installed and whether it would be used, from metadata alone: no plugin is imported."""
    return list_entry_points(select(discover(), config))
