"""Chooses the engine that runs a model: the one that is named or, with `auto`, the first that wants to and can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from poolkit.contract import Decision
from poolkit.errors import ModelError, PoolkitError

if TYPE_CHECKING:
    from pathlib import Path

    from poolkit.config import ModelConfig
    from poolkit.contract import EngineProvider, ModelInfo
    from poolkit.registry import Entries

__all__ = ["EngineChoice", "NamedEngine"]

AUTO = "auto"
LAST_RESORT = "torch"
"""The entry of the table that `auto` takes where no other engine runs the model."""


class Describe(Protocol):
    """Describes a model whose folder core cannot read: what an engine may have beside `load_backbone`."""

    def __call__(self, folder: Path, *, config: ModelConfig) -> ModelInfo | None:
        """Return what the model is, or None if it is none of the engine's own."""
        ...


@dataclass(frozen=True, slots=True)
class NamedEngine:
    """An engine, and its name in the table."""

    name: str
    provider: EngineProvider


class EngineChoice:
    """The engines that may run one model, in the order in which they are asked.

    With `auto` these are the engines of the enabled plugins in the order of enabling, then poolkit's own, each if it
    has `suits`, and at last the one that takes any model of transformers, which is not imported before its turn.

    Args:
        name: of an engine, or "auto".
        entries: the table of engines.

    Raises ConfigError and PluginError as the table does.
    """

    def __init__(self, name: str, entries: Entries) -> None:
        self._is_auto = name == AUTO
        self._entries = entries
        self._waiting = list(_find_suitable(entries)) if self._is_auto else [_find(name, entries)]
        self._last = LAST_RESORT if self._is_auto else None
        self._current: NamedEngine | None = None
        self._reasons: list[tuple[str, str]] = []

    def describe(self, folder: Path, config: ModelConfig) -> ModelInfo | None:
        """Return what the model is, if an engine knows its folder: no other engine is asked then to run it.

        Raises ModelError where an engine fails to tell.
        """
        for engine in self._waiting:
            describe: Describe | None = getattr(engine.provider, "describe", None)
            if describe is None:
                continue
            with _blame(f"Engine {engine.name!r} failed to describe the model in {folder}"):
                described = describe(folder, config=config)
            if described is not None:
                self._waiting, self._last = [engine], None
                return described
        return None

    def current(self, info: ModelInfo) -> NamedEngine:
        """Return the engine that is to run the model: the first that wants to and has not refused it.

        Raises ModelError where none is left.
        """
        while self._current is None:
            if not self._waiting and self._last is not None:
                self._waiting, self._last = [_find(self._last, self._entries)], None
            if not self._waiting:
                raise self._refusal(info)
            engine = self._waiting[0]
            reason = self._ask(engine, info)
            if reason is None:
                self._current = engine
            else:
                self._drop(engine, reason)
        return self._current

    def refuse(self, reason: str) -> None:
        """Leave out the current engine, which cannot run the model."""
        assert self._current is not None
        self._drop(self._current, reason)
        self._current = None

    def decision(self, info: ModelInfo) -> Decision:
        """Return which engine runs the model, and why none before it does. Raises ModelError as `current` does."""
        name = self.current(info).name
        if not self._is_auto:
            return Decision("engine", name, "engine")
        reasons = "; ".join(f"{refusing}: {reason}" for refusing, reason in self._reasons)
        return Decision("engine", name, f"auto: {reasons}" if reasons else "auto")

    def _ask(self, engine: NamedEngine, info: ModelInfo) -> str | None:
        """Return why an engine does not want to run the model. One that the operator names is not asked."""
        suits: Callable[[ModelInfo], str | None] | None = getattr(engine.provider, "suits", None)
        if not self._is_auto or suits is None:
            return None
        with _blame(f"Engine {engine.name!r} failed to say if it suits {info.name}"):
            return suits(info)

    def _drop(self, engine: NamedEngine, reason: str) -> None:
        self._waiting.remove(engine)
        self._reasons.append((engine.name, reason))

    def _refusal(self, info: ModelInfo) -> ModelError:
        if not self._is_auto:
            [(name, reason)] = self._reasons
            return ModelError(f"The engine {name!r} cannot run {info.name}: {reason}. Choose another engine.")
        listing = "".join(f"\n  {name}: {reason}" for name, reason in self._reasons)
        return ModelError(f"No engine can run {info.name}:{listing}")


def _find(name: str, entries: Entries) -> NamedEngine:
    return NamedEngine(name, cast("EngineProvider", entries[name]))


def _find_suitable(entries: Entries) -> Iterator[NamedEngine]:
    """Import and yield the engines that can be asked what they suit: those of plugins, then poolkit's own."""
    names = [name for name in entries if name != LAST_RESORT]
    for name in sorted(names, key=entries.is_core):
        provider = entries.find(name)
        if hasattr(provider, "suits"):
            yield NamedEngine(name, cast("EngineProvider", provider))


@contextmanager
def _blame(failure: str) -> Iterator[None]:
    """Raise ModelError for whatever else than an error of poolkit's own is raised in the block."""
    try:
        yield
    except PoolkitError:
        raise
    except Exception as exc:
        raise ModelError(f"{failure}: {type(exc).__name__}: {exc}") from exc
