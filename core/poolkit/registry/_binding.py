"""Step 5: give a task its behaviour for one model: its settings and the processor of each operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import BaseModel, ValidationError

from poolkit.contract import BindContext, PoolingTask
from poolkit.errors import PluginConfigError, PoolkitError, UnknownTaskError, did_you_mean
from poolkit.models import ModelInfo
from poolkit.registry._discovery import Plugin
from poolkit.registry._hooks import BoundOperation, bind_operation
from poolkit.registry._loading import Loaded, LoadedTask, raise_together
from poolkit.validation import complaints

__all__ = ["BoundTask", "bind"]


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
        """Release what the processors took."""
        _close(self.operations.values())


def bind(loaded: Loaded, task: PoolingTask, model: ModelInfo) -> BoundTask:
    """Import the processors of an enabled task and create them for one model. On failure none of them stays.

    Raises:
        UnknownTaskError: the task is none of the enabled ones.
        PluginError: a setting is wrong, or a processor cannot be imported or created, or breaks the contract.
        StartupError: several of these at once.
    """
    found = next((candidate for candidate in loaded.tasks if candidate.target == task), None)
    if found is None:
        raise UnknownTaskError(f"task {task.name!r} is not one of the enabled tasks' descriptors.", task=task.name)
    settings = _read_settings(loaded, found, task)
    operations: dict[str, BoundOperation] = {}
    errors: list[PoolkitError] = []
    for operation in task.operations:
        context = BindContext(task=task, operation=operation, settings=settings, model=model)
        try:
            operations[operation.name] = bind_operation(context, found.enabled)
        except PoolkitError as error:
            errors.append(error)
    if errors:
        _close(operations.values())
    raise_together(errors)
    return BoundTask(task, found.plugin, settings, MappingProxyType(operations))


def _close(operations: Iterable[BoundOperation]) -> None:
    for operation in operations:
        operation.close()


def _read_settings(loaded: Loaded, found: LoadedTask, task: PoolingTask) -> BaseModel:
    """Return the task's settings out of its plugin's table, which all tasks of the plugin share."""
    plugin = found.plugin
    own = _field_names(task)
    known = own.union(
        *(
            _field_names(sibling.target)
            for sibling in loaded.tasks
            if sibling.plugin == plugin and isinstance(sibling.target, PoolingTask)
        )
    )
    table = loaded.selection.settings.get(plugin.name, {})
    values = {name: value for name, value in table.items() if name in own}
    listing = ", ".join(sorted(known)) or "none"
    problems = [
        f"{name}: no such setting.{did_you_mean(name, sorted(known))} Settings: {listing}."
        for name in table
        if name not in known
    ]
    try:
        settings = task.settings.model_validate(values)
    except ValidationError as error:
        problems += [f"{complaint}." for complaint in complaints(error, values, task.settings)]
    if problems:
        where = f"[plugins.{plugin.name}]"
        raise_together([PluginConfigError(f"{where} {problem}", plugin=plugin.name) for problem in problems])
    return settings


def _field_names(task: PoolingTask) -> set[str]:
    return {field.alias or name for name, field in task.settings.model_fields.items()}
