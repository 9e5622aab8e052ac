"""Checks of where an engine puts its hidden states, and of what it leaves behind: in memory, and open."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import EncodedPrompt, States
from poolkit.registry import EntryPoint
from poolkit.testing.checks.check import check
from poolkit.testing.checks.engines import engine_states_fit
from poolkit.testing.checks.leaks import bytes_held, find_line, is_left_running, left_open, tracing
from poolkit.testing.checks.loaded_engine import LoadedEngine, engines_of, load_engine, loaded_engines
from poolkit.testing.checks.plugin import PluginUnderTest, format_error, open_files
from poolkit.testing.checks.resources import log_records
from poolkit.testing.stacks import find_culprits

__all__ = [
    "engine_caches_are_bounded",
    "engine_close_is_clean",
    "engine_leaves_nothing_open",
    "engine_memory_is_given_back",
    "engine_names_its_device",
]

BATCHES, COUNTS = 10, 10
"""Batches before the memory is counted, and the number of times that it must have grown: caches fill at first."""
DISTINCT, PARTS = 300, 5
"""The number of different batches that are run, and that of their parts: after each the memory is counted."""

MAX_BYTES = 16
"""The bytes that a batch may leave behind: no more than the smallest object has."""

Prompts = Sequence[EncodedPrompt]


@check(since="0.1", needs=(engine_states_fit,))
def engine_names_its_device(plugin: PluginUnderTest) -> Iterator[str]:
    """Hidden states come on the device that `find_device` names, by default the CPU: heads are put there."""
    for engine in loaded_engines(plugin):
        find = getattr(engine.provider, "find_device", None)
        try:
            named = "cpu" if find is None else find(engine.info)
        except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
            yield f"engine {engine.name!r} fails in find_device: {format_error(error)}"
            continue
        if find is not None and not _is_device(named):
            yield f"engine {engine.name!r}: find_device returns {named!r}, which is no device that torch knows."
            continue
        states, _, _ = engine.states(list(engine.prompts.values()))
        found = next((device for device in _devices(states) if _index(device) != _index(named)), None)
        if found is not None:
            told = "there is no find_device" if find is None else f"find_device returns {named!r}"
            yield f"engine {engine.name!r}: its hidden states are on {found!r}, and {told}. Return what holds them."


@check(since="0.1", needs=(engine_states_fit,))
def engine_close_is_clean(plugin: PluginUnderTest) -> Iterator[str]:
    """Closing an engine raises nothing."""
    for entry in engines_of(plugin):
        with log_records() as records:
            _use(plugin, entry)
        for record in records:
            if record.exc_info is not None and record.exc_info[1] is not None:
                yield f"engine {entry.name!r} fails in close: {format_error(record.exc_info[1])}"


@check(since="0.1", needs=(engine_close_is_clean,))
def engine_leaves_nothing_open(plugin: PluginUnderTest) -> Iterator[str]:
    """Once an engine is closed, no thread runs and no file or socket is open that was not before."""
    for entry in engines_of(plugin):
        _use(plugin, entry)  # what is set up once, for every model, may stay
        threads, files = threading.enumerate(), open_files()
        _use(plugin, entry)
        gc.collect()
        for thread in threading.enumerate():
            if thread not in threads and is_left_running(thread):
                where = "".join(f" in {place}" for place in find_culprits(plugin.is_own, thread)[:1])
                yield f"engine {entry.name!r}: the thread {thread.name!r} still runs{where}. End it in close()."
        for target in left_open(files):
            yield f"engine {entry.name!r}: {target} is still open. Close it in close()."


@check(since="0.1", needs=(engine_states_fit,))
def engine_memory_is_given_back(plugin: PluginUnderTest) -> Iterator[str]:
    """A batch that is run again and again leaves nothing behind."""
    for engine in loaded_engines(plugin):
        batches = [list(engine.prompts.values())] * BATCHES
        if _always_grows(engine, [batches] * (COUNTS + 1)):
            yield (
                f"engine {engine.name!r}: each time a batch is run, memory is left behind"
                f"{_find_line(plugin, engine, batches, batches)}. What belongs to a batch must go with it."
            )


@check(since="0.1", needs=(engine_memory_is_given_back,), is_advice=True)
def engine_caches_are_bounded(plugin: PluginUnderTest) -> Iterator[str]:
    """The memory that different batches leave behind is bounded."""
    size = DISTINCT // PARTS
    for engine in loaded_engines(plugin):
        batches = _different_batches(engine, DISTINCT + 2 * BATCHES)
        if _always_grows(engine, (batches[start : start + size] for start in range(0, DISTINCT, size))):
            where = _find_line(plugin, engine, batches[DISTINCT:-BATCHES], batches[-BATCHES:])
            yield (
                f"engine {engine.name!r}: {DISTINCT} different batches later each one still leaves memory behind"
                f"{where}. If nothing bounds what keeps them, give it a bound."
            )


def _use(plugin: PluginUnderTest, entry: EntryPoint) -> None:
    """Load an engine, run a batch and close it."""
    with load_engine(plugin, entry) as engine:
        engine.rows(list(engine.prompts.values()))


def _run(engine: LoadedEngine, batches: Iterable[Prompts]) -> None:
    for batch in batches:
        engine.states(batch)


def _always_grows(engine: LoadedEngine, parts: Iterable[Sequence[Prompts]]) -> bool:
    """Return whether each part of some batches leaves memory behind; the first one may."""
    held = None
    with tracing():
        for batches in parts:
            _run(engine, batches)
            held, before = bytes_held(), held
            if before is not None and held - before <= MAX_BYTES * len(batches):
                return False
    return True


def _find_line(
    plugin: PluginUnderTest, engine: LoadedEngine, warm_up: Sequence[Prompts], batches: Sequence[Prompts]
) -> str:
    return find_line(plugin, lambda: _run(engine, warm_up), lambda: _run(engine, batches))


def _different_batches(engine: LoadedEngine, count: int) -> list[Prompts]:
    """Return batches of one prompt each: the longest, the tokens of its text in another order each time."""
    prompt = max(engine.prompts.values(), key=lambda prompt: len(prompt.token_ids))
    first, *text, last = prompt.token_ids
    dice = np.random.default_rng(0)
    orders = (np.array([first, *dice.permutation(text), last], np.int32) for _ in range(count))
    return [[replace(prompt, token_ids=token_ids)] for token_ids in orders]


def _is_device(name: object) -> bool:
    """Return whether torch knows a device of that name."""
    import torch

    if not isinstance(name, str):
        return False
    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True


def _devices(states: States[NDArray[np.generic]]) -> list[str]:
    """Return the device of each array or tensor."""
    arrays: list[object] = [states.tokens, states.rows, *states.taps.values()]
    return [str(getattr(array, "device", "cpu")) for array in arrays if array is not None]


def _index(device: str) -> tuple[str, str]:
    """Return a device's kind and its number among those."""
    kind, _, number = device.partition(":")
    return kind, number or "0"
