"""Step 5: give a task its behaviour for one model: its settings and the processor of each operation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from poolkit.contract import BindContext, PoolingTask
from poolkit.errors import PluginError, PoolkitError
from poolkit.models import ModelInfo
from poolkit.registry._discovery import Plugin
from poolkit.registry._hooks import BoundOperation, bind_operation
from poolkit.registry._loading import Loaded
from poolkit.registry._together import raise_together
from poolkit.registry._wrapping import Wrapper

if TYPE_CHECKING:
    from poolkit.contract import PromptEncoder

__all__ = ["BoundTask", "bind"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class BoundTask:
    """A task, ready to answer requests for one model.

    Attributes:
        task: the descriptor.
        plugin: who provides it.
        settings: its validated settings.
        operations: what it can be asked, by name, in the descriptor's order.
    """

    task: PoolingTask
    plugin: Plugin
    settings: BaseModel
    operations: Mapping[str, BoundOperation]

    def close(self) -> None:
        """Release what the processors and wrappers took."""
        _close(self.operations.values())


def bind(loaded: Loaded, task: PoolingTask, model: ModelInfo, encoder: PromptEncoder) -> BoundTask:
    """Import the processors of an enabled task and create them for one model, with the enabled plugins' wrappers.

    On failure none of them stays. A plugin that only `"*"` enabled and that fails to wrap is left out with a warning.

    Raises:
        UnknownTaskError: the task is none of the enabled ones.
        PluginError: a setting is wrong, or a processor cannot be imported or created, or breaks the contract.
        StartupError: several of these at once.
    """
    found = loaded.find(task)
    settings = loaded.read_settings(found.plugin, task.settings)
    operations: dict[str, BoundOperation] = {}
    errors: list[PoolkitError] = []
    for operation in task.operations:
        context = BindContext(task, operation, settings, model, encoder)
        wrappers = _wrap(loaded, context, errors)
        try:
            operations[operation.name] = bind_operation(context, found.enabled, wrappers)
        except PoolkitError as error:
            errors.append(error)
            for wrapper in wrappers:
                wrapper.close()
    if errors:
        _close(operations.values())
    raise_together(errors)
    return BoundTask(task, found.plugin, settings, MappingProxyType(operations))


def _close(operations: Iterable[BoundOperation]) -> None:
    for operation in operations:
        operation.close()


def _wrap(loaded: Loaded, context: BindContext, errors: list[PoolkitError]) -> list[Wrapper]:
    """Return what surrounds one operation, outermost first; add to `errors` what must not be left out."""
    wrappers: list[Wrapper] = []
    for module in loaded.hooks:
        try:
            wrappers += module.wrap(context, loaded.read_settings(module.plugin, module.settings))
        except PoolkitError as error:
            if module.enabled.must_load or not isinstance(error, PluginError):
                errors.append(error)
            else:
                logger.warning("%s is left out of task %r: %s", module.plugin, context.task.name, error, exc_info=error)
    return wrappers
