"""Step 6: hand a task on to another process, which imports what it is told to and looks for nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from poolkit.contract import PoolingTask
from poolkit.models import ModelInfo
from poolkit.registry._binding import BoundTask, bind
from poolkit.registry._discovery import EntryPoint
from poolkit.registry._loading import Loaded, load
from poolkit.registry._selection import Selection

if TYPE_CHECKING:
    from poolkit.contract import PromptEncoder

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A task to be bound elsewhere: names, entry points and settings, all of them plain data that pickles.

    Attributes:
        selection: the plugins that take part: the task's own and those with hook modules.
        plugin: the name of the one that provides the task.
        entry_point: the task's.
    """

    selection: Selection
    plugin: str
    entry_point: EntryPoint

    @classmethod
    def of(cls, loaded: Loaded, task: PoolingTask) -> Self:
        """Return the plan for an enabled task.

        Raises:
            UnknownTaskError: the task is none of the enabled ones.
        """
        found = loaded.find(task)
        involved = {found.plugin.name, *(module.plugin.name for module in loaded.hooks)}
        enabled = tuple(one for one in loaded.selection.enabled if one.plugin.name in involved)
        return cls(replace(loaded.selection, enabled=enabled), found.plugin.name, found.entry_point)

    def bind(self, model: ModelInfo, encoder: PromptEncoder) -> BoundTask:
        """Import the plugins that take part, and bind the task.

        Raises:
            PluginError: one of them cannot be used.
            StartupError: several of these at once.
        """
        loaded = load(self.selection)
        for found in loaded.tasks:
            if (found.plugin.name, found.entry_point) == (self.plugin, self.entry_point):
                assert isinstance(found.target, PoolingTask)  # the plan was made from one
                return bind(loaded, found.target, model, encoder)
        raise next(failure.error for failure in loaded.quarantined if failure.entry_point == self.entry_point)
