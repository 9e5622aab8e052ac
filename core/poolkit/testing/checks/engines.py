"""Checks of an engine, on a small model: what it gives for a prompt depends on that prompt alone."""

from __future__ import annotations

import pkgutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import importlib_metadata
import numpy as np
from numpy.typing import NDArray
from packaging.utils import canonicalize_name

from poolkit.config import ModelConfig
from poolkit.contract import Backbone, Batch, Decision, EncodedPrompt, PoolingParams, States
from poolkit.engine.batch import fit_states, lay_out
from poolkit.pipeline import prepare_model
from poolkit.registry import ENGINES, EntryPoint
from poolkit.testing.checks.check import check
from poolkit.testing.checks.metadata import plugin_loads
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.serving import FAKES
from poolkit.testing.tiny_model import write_tiny_model

__all__ = [
    "engine_batches_equal_singles",
    "engine_is_deterministic",
    "engine_is_thread_safe",
    "engine_leaves_batches_alone",
    "engine_loads",
    "engine_states_fit",
]

REL_TOL, ABS_TOL = 1e-3, 1e-4
"""In float32, the products of a batch add up in another order than those of a single prompt."""

THREADS = 4
ROUNDS = 3

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine with a small model.

    Attributes:
        name: of its entry point.
        backbone: what it loaded.
        prompts: by what they are, tokenized for the model.
    """

    name: str
    backbone: Backbone[NDArray[np.generic]]
    prompts: dict[str, EncodedPrompt]

    def states(self, prompts: Sequence[EncodedPrompt]) -> tuple[States[NDArray[np.generic]], Batch, list[int]]:
        """Return the states of prompts, borrowed from the engine, their batch, and where it has each prompt."""
        batch, order = lay_out(prompts)
        return fit_states(self.backbone(batch), batch), batch, order

    def rows(self, prompts: Sequence[EncodedPrompt]) -> list[Rows]:
        """Return a copy of each prompt's states."""
        return _rows_of(*self.states(prompts))


@check(since="0.1", needs=(plugin_loads,))
def engine_loads(plugin: PluginUnderTest) -> Iterator[str]:
    """An engine loads a small model, or says why it cannot run it, and says what it decided."""
    for entry in _engines(plugin):
        try:
            with _load(plugin, entry) as engine:
                decisions = engine.backbone.decisions
                if not all(isinstance(decision, Decision) for decision in decisions):
                    yield f"{entry}: its decisions are {decisions!r}, not a sequence of poolkit.Decision."
        except NotApplicableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
            yield f"{entry} does not load: {format_error(error)}"


@check(since="0.1", needs=(engine_loads,))
def engine_states_fit(plugin: PluginUnderTest) -> Iterator[str]:
    """Every prompt gets finite states, a row for each token or one for all: a blank, a long, a repeated one too."""
    for engine in _loaded(plugin):
        for what, prompts in _batches(engine).items():
            try:
                rows = engine.rows(prompts)
            except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
                yield f"engine {engine.name!r} with {what}: {format_error(error)}"
                continue
            if not all(np.isfinite(states).all() for states in rows):
                yield f"engine {engine.name!r} with {what}: its states are infinite or not a number."


@check(since="0.1", needs=(engine_states_fit,))
def engine_batches_equal_singles(plugin: PluginUnderTest) -> Iterator[str]:
    """A prompt's states are the same in every batch, whatever stands before and behind it, and in their place."""
    for engine in _loaded(plugin):
        alone = {name: engine.rows([prompt])[0] for name, prompt in engine.prompts.items()}
        names = list(engine.prompts)
        for order in (names, names[::-1], [*names, *names]):
            rows = engine.rows([engine.prompts[name] for name in order])
            wrong = [name for name, states in zip(order, rows, strict=True) if not _is_close(states, alone[name])]
            if wrong:
                yield (
                    f"engine {engine.name!r}: the states of {wrong[0]} in a batch of {len(order)} prompts are not "
                    "those that it gets alone."
                )
                break


@check(since="0.1", needs=(engine_states_fit,))
def engine_is_deterministic(plugin: PluginUnderTest) -> Iterator[str]:
    """The same batch gets the same states, again and from an engine that is loaded again."""
    for entry in _engines(plugin):
        with _load(plugin, entry) as engine, _load(plugin, entry) as reloaded:
            prompts = list(engine.prompts.values())
            first = engine.rows(prompts)
            if not _are_close(engine.rows(prompts), first):
                yield f"engine {engine.name!r}: run twice, a batch has two results."
            elif not _are_close(reloaded.rows(prompts), first):
                yield f"engine {engine.name!r}: loaded again, it gives other states."


@check(since="0.1", needs=(engine_is_deterministic,))
def engine_is_thread_safe(plugin: PluginUnderTest) -> Iterator[str]:
    """Several threads may run batches at a time; their states stay whole until the same thread runs the next one."""
    for engine in _loaded(plugin):
        prompts = list(engine.prompts.values())
        batches = [prompts[number % len(prompts) :] for number in range(THREADS)]
        alone = [engine.rows(batch) for batch in batches]
        for _ in range(ROUNDS):
            together = _run_together(engine, batches)
            failure = next((result for result in together if isinstance(result, Exception)), None)
            if failure is not None:
                yield f"engine {engine.name!r} in {THREADS} threads: {format_error(failure)}"
                break
            if not all(map(_are_close, together, alone)):
                yield (
                    f"engine {engine.name!r}: in {THREADS} threads at a time a batch gets other states than alone. "
                    "Keep buffers by thread."
                )
                break


def _run_together(engine: LoadedEngine, batches: Sequence[Sequence[EncodedPrompt]]) -> list[list[Rows] | Exception]:
    """Return each batch's rows, or what running it raised. None is read before all have run."""
    barrier = threading.Barrier(len(batches))

    def run(batch: Sequence[EncodedPrompt]) -> list[Rows] | Exception:
        barrier.wait()
        try:
            states = engine.states(batch)
        except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
            return error
        finally:
            barrier.wait()
        return _rows_of(*states)

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(run, batches))


@check(since="0.1", needs=(engine_states_fit,))
def engine_leaves_batches_alone(plugin: PluginUnderTest) -> Iterator[str]:
    """A batch is not changed: the poolers read it too."""
    for engine in _loaded(plugin):
        batch, _ = lay_out(list(engine.prompts.values()))
        given = {field.name: getattr(batch, field.name) for field in fields(batch)}
        before = {name: array.copy() for name, array in given.items() if isinstance(array, np.ndarray)}
        engine.backbone(batch)
        for name, array in before.items():
            if not np.array_equal(given[name], array):
                yield f"engine {engine.name!r} changes {name} of the batch. Work on a copy."


def _engines(plugin: PluginUnderTest) -> tuple[EntryPoint, ...]:
    engines = plugin.installed.in_group(ENGINES)
    if not engines:
        raise NotApplicableError("the plugin has no engines")
    return engines


def _loaded(plugin: PluginUnderTest) -> Iterator[LoadedEngine]:
    for entry in _engines(plugin):
        with _load(plugin, entry) as engine:
            yield engine


@contextmanager
def _load(plugin: PluginUnderTest, entry: EntryPoint) -> Iterator[LoadedEngine]:
    """Yield an engine with a small model: that of `poolkit.fakes`, or a BERT."""
    with tempfile.TemporaryDirectory() as folder:
        _find_writer(plugin.installed.name, entry.name)(Path(folder))
        config = ModelConfig(model=folder, engine=entry.name, dtype="float32")
        prepared = prepare_model(config, plugin.config)
        try:
            backbone = prepared.provider.load_backbone(prepared.info)
            if isinstance(backbone, str):
                raise NotApplicableError(
                    f"engine {entry.name!r} cannot run the model that it was tried with: {backbone}. Name a function "
                    f"that writes a small one into a folder in an entry point {entry.name!r} of group {FAKES}"
                )
            size = prepared.info.max_model_len
            texts = {
                "an empty text": "",
                "a short text": "a cat",
                "a text of other scripts": "東京 مرحبا 🙂",
                "a text of some length": "the cat sat on the mat and the dog ran in the park",
                "the longest text": " ".join("abcdefgh"[number % 8] for number in range(4 * size)),
            }
            params = prepared.encoder.resolve(PoolingParams(truncate_prompt_tokens=-1))
            encoded = prepared.encoder.encode(list(texts.values()), [params] * len(texts))
            prompts = {
                name: prompt for name, prompt in zip(texts, encoded, strict=True) if isinstance(prompt, EncodedPrompt)
            }
            yield LoadedEngine(entry.name, cast("Backbone[NDArray[np.generic]]", backbone), prompts)
        finally:
            prepared.task.close()


def _find_writer(plugin: str, engine: str) -> Callable[[Path], None]:
    """Return what writes the model that an engine is tried with."""
    for entry_point in importlib_metadata.entry_points(group=FAKES, name=engine):
        if entry_point.dist is not None and canonicalize_name(entry_point.dist.name) == plugin:
            return cast("Callable[[Path], None]", pkgutil.resolve_name(entry_point.value))
    return write_tiny_model


def _batches(engine: LoadedEngine) -> dict[str, list[EncodedPrompt]]:
    """Return batches by what they are."""
    every = list(engine.prompts.values())
    singles = {name: [prompt] for name, prompt in engine.prompts.items()}
    return {**singles, "all of them together": every, "each of them twice": [*every, *every]}


def _rows_of(states: States[NDArray[np.generic]], batch: Batch, order: Sequence[int]) -> list[Rows]:
    """Return a copy of each prompt's states, in the order of the prompts."""
    if states.tokens is None:
        assert states.rows is not None
        found = list(_to_numpy(states.rows)[:, None])
    else:
        found = list((states.segments or batch.segments).split(_to_numpy(states.tokens)))
    places = np.argsort(order)
    return [found[place].copy() for place in places]


def _to_numpy(array: object) -> Rows:
    """Return a numpy array or a torch tensor in float32, on the host."""
    if not isinstance(array, np.ndarray):
        import torch

        assert isinstance(array, torch.Tensor)
        array = array.detach().float().cpu().numpy()
    return array.astype(np.float32)


def _are_close(given: list[Rows] | Exception, expected: list[Rows]) -> bool:
    return not isinstance(given, Exception) and all(map(_is_close, given, expected))


def _is_close(given: Rows, expected: Rows) -> bool:
    scale = float(np.abs(expected).max(initial=1.0))
    return given.shape == expected.shape and np.allclose(given, expected, rtol=REL_TOL, atol=ABS_TOL * scale)
