"""Checks of an engine, on a small model: the states of a prompt depend on that prompt alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np

from poolkit.contract import Decision, EncodedPrompt
from poolkit.engine.batch import lay_out
from poolkit.testing.checks.check import check
from poolkit.testing.checks.loaded_engine import (
    LoadedEngine,
    Rows,
    engines_of,
    load_engine,
    loaded_engines,
    rows_of,
)
from poolkit.testing.checks.metadata import plugin_loads
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error

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


@check(since="0.1", needs=(plugin_loads,))
def engine_loads(plugin: PluginUnderTest) -> Iterator[str]:
    """An engine loads a small model, or says why it cannot run it, and says what it decided."""
    for entry in engines_of(plugin):
        try:
            with load_engine(plugin, entry) as engine:
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
    for engine in loaded_engines(plugin):
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
    """A prompt's states are the same in every batch, and in its place there."""
    for engine in loaded_engines(plugin):
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
    for entry in engines_of(plugin):
        with load_engine(plugin, entry) as engine, load_engine(plugin, entry) as reloaded:
            prompts = list(engine.prompts.values())
            first = engine.rows(prompts)
            if not _are_close(engine.rows(prompts), first):
                yield f"engine {engine.name!r}: run twice, a batch has two results."
            elif not _are_close(reloaded.rows(prompts), first):
                yield f"engine {engine.name!r}: loaded again, it gives other states."


@check(since="0.1", needs=(engine_is_deterministic,))
def engine_is_thread_safe(plugin: PluginUnderTest) -> Iterator[str]:
    """Several threads may run batches at a time; their states stay whole until the same thread runs the next one."""
    for engine in loaded_engines(plugin):
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
        return rows_of(*states)

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(run, batches))


@check(since="0.1", needs=(engine_states_fit,))
def engine_leaves_batches_alone(plugin: PluginUnderTest) -> Iterator[str]:
    """A batch is not changed: the poolers read it too."""
    for engine in loaded_engines(plugin):
        batch, _ = lay_out(list(engine.prompts.values()))
        given = {field.name: getattr(batch, field.name) for field in fields(batch)}
        before = {name: array.copy() for name, array in given.items() if isinstance(array, np.ndarray)}
        engine.backbone(batch)
        for name, array in before.items():
            if not np.array_equal(given[name], array):
                yield f"engine {engine.name!r} changes {name} of the batch. Work on a copy."


def _batches(engine: LoadedEngine) -> dict[str, list[EncodedPrompt]]:
    """Return batches by what they are."""
    every = list(engine.prompts.values())
    singles = {name: [prompt] for name, prompt in engine.prompts.items()}
    return {**singles, "all of them together": every, "each of them twice": [*every, *every]}


def _are_close(given: list[Rows] | Exception, expected: list[Rows]) -> bool:
    return not isinstance(given, Exception) and all(map(_is_close, given, expected))


def _is_close(given: Rows, expected: Rows) -> bool:
    scale = float(np.abs(expected).max(initial=1.0))
    return given.shape == expected.shape and np.allclose(given, expected, rtol=REL_TOL, atol=ABS_TOL * scale)
