"""The plugin under test: its descriptors, its settings, its own files, and its tasks served by a fake engine."""

from __future__ import annotations

import pkgutil
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Protocol, Self, TypedDict, cast

import importlib_metadata
from pydantic import BaseModel, ValidationError

from poolkit.config import ModelConfig, PluginConfig, Reference
from poolkit.contract import Operation, PoolingTask
from poolkit.pipeline.served import ServedModel
from poolkit.registry import HOOKS, TASKS, EntryPoint, Plugin, Registry, find_plugin
from poolkit.testing.child import ask_child
from poolkit.testing.fake_engine import ChangeOutputs, Fake, FakeBackbone
from poolkit.testing.serving import fake_model, find_fake

__all__ = [
    "BackboneMaker",
    "ImportEffects",
    "NotApplicableError",
    "Pickled",
    "PluginUnderTest",
    "examples",
    "format_error",
    "open_files",
]

IMPORT_LIMIT_S = 20.0


class NotApplicableError(Exception):
    """A check has nothing to look at; the message says why."""


class Pickled(TypedDict):
    """A pickle in base64, or what making it raised."""

    data: str
    error: str


class ImportEffects(TypedDict):
    """The report of a fresh interpreter that imports a plugin.

    Attributes:
        heavy: big packages that the import imports.
        effects: the changes that it makes, each as the rest of a sentence: "changes sys.path".
        failure: the type of what it raises.
        pickles: of each of the plugin's `parts`.
    """

    heavy: list[str]
    effects: list[str]
    failure: str | None
    pickles: dict[str, Pickled]


@dataclass(frozen=True)
class PluginUnderTest:
    """The plugin under test. It is enabled for the checks alone, whatever the user's configuration says.

    Attributes:
        installed: its metadata.
        given_settings: the settings that its author gives it.
        threads_at_start: those that ran before anything of it was imported.
        files_at_start: the files that were open, by file descriptor.
    """

    installed: Plugin
    given_settings: Mapping[str, object]
    threads_at_start: Sequence[threading.Thread] = field(default_factory=threading.enumerate)
    files_at_start: Mapping[str, str] = field(default_factory=lambda: open_files())

    @classmethod
    def read(cls, question: object) -> Self:
        """Return the plugin that a child process was asked about: `question`, sent as JSON."""
        fields = cast("dict[str, object]", question)
        found = find_plugin(cast("str", fields["plugin"]), named="named for the conformance kit")
        return cls(found, cast("dict[str, object]", fields["settings"]))

    @property
    def question(self) -> dict[str, object]:
        """The arguments with which a child process of the kit finds the same plugin."""
        return {"plugin": self.installed.name, "settings": dict(self.given_settings)}

    @property
    def is_part_of_poolkit(self) -> bool:
        """True if it is in poolkit's own distribution, each of whose hook modules is a plugin without one."""
        try:
            importlib_metadata.distribution(self.installed.name)
        except importlib_metadata.PackageNotFoundError:
            return True
        return self.installed.is_builtin

    def is_own(self, file: str) -> bool:
        """Return whether a file is one of its own: of the packages that its entry points are in."""
        return file in self._files or any(Path(file).is_relative_to(folder) for folder in self._folders)

    @cached_property
    def _modules(self) -> tuple[ModuleType, ...]:
        names = {re.split(r"[.:]", entry.value)[0] for entry in self.installed.entry_points}
        return tuple(sys.modules[name] for name in sorted(names) if name in sys.modules)

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(module.__file__ for module in self._modules if module.__file__ is not None)

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        return tuple(folder for module in self._modules for folder in getattr(module, "__path__", ()))

    @cached_property
    def tasks(self) -> Mapping[EntryPoint, PoolingTask]:
        """Its own descriptors, without former names. The entry points must resolve."""
        targets = {entry: pkgutil.resolve_name(entry.value) for entry in self.installed.in_group(TASKS)}
        if not targets:
            raise NotApplicableError("the plugin has no tasks of its own")
        return {entry: target for entry, target in targets.items() if isinstance(target, PoolingTask)}

    @property
    def operations(self) -> Iterator[tuple[PoolingTask, Operation]]:
        """Every operation of its own tasks, once."""
        for task in dict.fromkeys(self.tasks.values()):
            yield from ((task, operation) for operation in task.operations)

    @cached_property
    def settings_models(self) -> tuple[type[BaseModel], ...]:
        """The models that validate its table: those of its tasks, and that of its hook modules."""
        tasks = self.tasks.values() if self.installed.in_group(TASKS) else ()
        modules = [pkgutil.resolve_name(entry.value) for entry in self.installed.in_group(HOOKS)]
        models = [*(task.settings for task in tasks), *(getattr(module, "Settings", None) for module in modules)]
        return tuple(dict.fromkeys(model for model in models if model is not None))

    @cached_property
    def settings(self) -> Mapping[str, object]:
        """Its table: the given settings, and the first example of each model that needs some."""
        table: dict[str, object] = {}
        for model in self.settings_models:
            try:
                model.model_validate({})
            except ValidationError:
                table |= next(iter(examples(model)), {})
        return table | dict(self.given_settings)

    def settings_of(self, model: type[BaseModel]) -> dict[str, object]:
        """Return the part of `settings` that one of the models reads."""
        names = {field.alias or name for name, field in model.model_fields.items()}
        return {name: value for name, value in self.settings.items() if name in names}

    @property
    def parts(self) -> Mapping[str, object]:
        """The objects of it that worker processes are given: descriptors and settings, by what to call them."""
        tasks = self.tasks.values() if self.installed.in_group(TASKS) else ()
        settings = {
            f"its settings ({model.__module__}.{model.__name__})": model.model_validate(self.settings_of(model))
            for model in self.settings_models
        }
        return {f"task {task.name!r}": task for task in tasks} | settings

    @property
    def config(self) -> PluginConfig:
        """A configuration that enables it."""
        enable = Reference(self.installed.name, "poolkit.testing")
        return PluginConfig(enable=(enable,), settings={self.installed.name: dict(self.settings)})

    @cached_property
    def own_tasks(self) -> tuple[str, ...]:
        """Its own tasks as `fake_model` takes them."""
        return tuple(dict.fromkeys(f"{self.installed.name}:{task.name}" for task in self.tasks.values()))

    @cached_property
    def served_tasks(self) -> tuple[str, ...]:
        """The tasks to try: its own, and the built-in ones where it has hooks, which surround them."""
        own = self.own_tasks if self.installed.in_group(TASKS) else ()
        if not self.installed.in_group(HOOKS):
            return own
        builtin = Registry.load(PluginConfig()).tasks
        names = (f"{found.plugin.name}:{found.name}" for found in builtin if isinstance(found.target, PoolingTask))
        return tuple(dict.fromkeys((*own, *names)))

    @cached_property
    def import_effects(self) -> ImportEffects:
        """The effects of importing its modules and processors in a fresh interpreter, heads and weights aside."""
        return cast("ImportEffects", ask_child("poolkit.testing.import_probe", self.question, limit_s=IMPORT_LIMIT_S))

    @contextmanager
    def serve(
        self, task: str, backbone: BackboneMaker = FakeBackbone, *, outputs: ChangeOutputs | None = None
    ) -> Iterator[ServedModel]:
        """Yield a model without weights that serves one of `served_tasks`."""
        plugin, _, name = task.partition(":")
        fake = find_fake(plugin, name)
        with fake_model(
            task,
            plugin=self.installed.name,
            settings=self.settings,
            backbone=lambda chosen: backbone(chosen, fake=fake),
            outputs=outputs,
            max_num_seqs=ModelConfig().max_num_seqs,  # room for a group of prompts, as in a server
        ) as served:
            yield served


class BackboneMaker(Protocol):
    """Makes the backbone of a check: `FakeBackbone`, or one that watches or waits."""

    def __call__(self, task: PoolingTask, *, fake: Fake | None) -> FakeBackbone:
        """Return the backbone for a task, with what stands in for its model."""
        ...


def examples(model: type[BaseModel]) -> list[dict[str, object]]:
    """Return the examples in a model's JSON schema."""
    found = model.model_json_schema().get("examples", [])
    return [example for example in found if isinstance(example, dict)] if isinstance(found, list) else []


def open_files() -> dict[str, str]:
    """Return what this process has open, by file descriptor, where the system tells: on Linux."""
    folder = Path("/proc/self/fd")
    targets: dict[str, str] = {}
    for file in folder.iterdir() if folder.exists() else ():
        with suppress(FileNotFoundError):  # the folder itself
            targets[file.name] = str(file.readlink())
    return targets


def format_error(error: BaseException) -> str:
    """Return an error in a line, with its causes."""
    line = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{line} Caused by {format_error(error.__cause__)}" if error.__cause__ is not None else line
