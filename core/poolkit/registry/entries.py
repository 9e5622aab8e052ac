"""Entry points of every group: what each kind must be, and the one way in which they are imported and checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

from poolkit.contract import TASK_NAME, Dialect, Modality, ModelFamily, PoolingTask, Removed, Renamed, RerankerFamily
from poolkit.errors import PoolkitError, did_you_mean
from poolkit.registry.check import NAME_RULE, check_api, modality_problems, task_problems
from poolkit.registry.discover import MODELS, NOUNS, TASKS, EntryPoint, Plugin
from poolkit.registry.hooks import module_problems
from poolkit.registry.importing import check_requirement, import_object
from poolkit.registry.select import Enabled, Selection

__all__ = ["Failure", "load_entry", "name_problem", "warn_of_taken_names"]

logger = logging.getLogger(__name__)

MODEL_KINDS = ("family", "module", "pooling", "reranker")
TYPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "task": (lambda entry: isinstance(entry, PoolingTask | Renamed | Removed), "a PoolingTask"),
    "hooks": (lambda entry: isinstance(entry, ModuleType), "a module with hooks"),
    "dialect": (lambda entry: isinstance(entry, Dialect), "a poolkit.Dialect or a tuple of them"),
    "family": (lambda entry: isinstance(entry, ModelFamily), "a poolkit.ModelFamily"),
    "modality": (lambda entry: isinstance(entry, Modality), "a poolkit.Modality"),
    "module": (callable, "a function"),
    "pooling": (callable, "a function"),
    "reranker": (lambda entry: isinstance(entry, RerankerFamily), "a poolkit.RerankerFamily"),
}
"""The check of an entry, by its kind, and the words for what passes it. Of a tuple of dialects each is checked."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry point that cannot be used."""

    entry_point: EntryPoint
    enabled: Enabled
    error: PoolkitError

    @property
    def plugin(self) -> Plugin:
        """The plugin that provides it."""
        return self.enabled.plugin

    def warn(self) -> None:
        """Log that it is left out, and why."""
        logger.warning(
            "%s %r of %s is not available: %s",
            NOUNS.get(self.entry_point.kind, "entry point").capitalize(),
            self.entry_point.short_name,
            self.plugin,
            self.error,
            exc_info=self.error.__cause__,
        )


def load_entry(entry_point: EntryPoint, enabled: Enabled, core: Plugin) -> object:
    """Import an entry point of any group and check that it is what its kind asks for.

    Raises:
        PluginError: it is for another poolkit or plugin API, cannot be imported, or breaks the contract.
    """
    plugin = enabled.plugin
    check_requirement(plugin, core)
    if (problem := name_problem(entry_point)) is not None:
        raise plugin.invalid(problem)
    entry = import_object(entry_point.value, enabled, entry_point=str(entry_point))
    if isinstance(entry, PoolingTask):
        check_api(entry, plugin, core)
    for problem in _problems(entry, entry_point, plugin):
        raise plugin.invalid(problem)
    return entry


def name_problem(entry_point: EntryPoint) -> str | None:
    """Return why an entry point of its group cannot have its name, or None."""
    if entry_point.group == TASKS and not TASK_NAME.fullmatch(entry_point.name):
        return f"entry point {entry_point.name!r} is not a task name. {NAME_RULE}"
    if entry_point.group == MODELS and not (entry_point.kind in MODEL_KINDS and entry_point.short_name):
        return (
            f"entry point {entry_point.name!r} in group {MODELS} must be named KIND.NAME."
            f"{did_you_mean(entry_point.kind, MODEL_KINDS)} Kinds: {', '.join(MODEL_KINDS)}."
        )
    return None


def warn_of_taken_names(selection: Selection) -> None:
    """Warn of each enabled entry that has the name of one of poolkit's own, which stays."""
    core = selection.installed.core
    for enabled in selection.enabled:
        plugin = enabled.plugin
        for entry_point in plugin.entry_points:
            is_taken = not plugin.is_builtin and core.provides(entry_point.group, entry_point.name)
            is_task = entry_point.group == TASKS
            if not is_taken or (is_task and core.name in selection.disabled_plugins):
                continue
            if selection.disabled_task(entry_point) is not None:
                continue
            name = entry_point.short_name
            remedy = f'Choose it with  task = "{plugin.name}:{name}"' if is_task else "Give it another name"
            noun = NOUNS[entry_point.kind].capitalize()
            logger.warning("%s %r of %s does not replace the built-in one. %s.", noun, name, plugin, remedy)


def _problems(entry: object, entry_point: EntryPoint, plugin: Plugin) -> Iterator[str]:
    """Yield each way in which an entry breaks the contract."""
    kind = entry_point.kind
    subject = f"{NOUNS[kind]} {entry_point.short_name!r}"
    is_right, wording = TYPES.get(kind, (lambda _: True, ""))
    for part in entry if kind == "dialect" and isinstance(entry, tuple) else (entry,):
        if not is_right(part):
            pointer = f"entry point {entry_point.name!r}" if kind in ("task", "hooks") else subject
            yield f"{pointer} points to an object of type {type(part).__name__}, not to {wording}."
    if kind == "engine" and not callable(getattr(entry, "load_backbone", None)):
        yield f"{subject} ({entry_point.value}) has no function load_backbone."
    if isinstance(entry, PoolingTask):
        yield from task_problems(entry, entry_point, plugin)
    if kind == "hooks" and isinstance(entry, ModuleType):
        yield from module_problems(entry)
    if isinstance(entry, Modality):
        yield from modality_problems(entry, entry_point)
