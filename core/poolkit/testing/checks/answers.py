"""Checks of the answers to a plugin's own examples, through the real pipeline around a fake engine."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import EncodedPrompt, PooledOutput
from poolkit.errors import RequestError
from poolkit.testing.checks.bodies import Body
from poolkit.testing.checks.check import check
from poolkit.testing.checks.contract import examples_validate, heads_have_fakes, hooks_bind
from poolkit.testing.checks.subject import NotApplicableError, Subject, tell
from poolkit.testing.checks.trials import Trial, trials
from poolkit.testing.fake_engine import FakeEngine

__all__ = [
    "answers_are_deterministic",
    "batch_equals_singles",
    "empty_batch_is_clear",
    "examples_are_answered",
    "input_is_not_mutated",
    "order_is_kept",
    "requests_keep_apart",
]

BATCH = 5
CONCURRENT = 16

REL_TOL, ABS_TOL = 1e-4, 1e-6
"""A product over many rows may add up in another order than one over a single row, in float32."""


@check(since="0.1", needs=(hooks_bind, examples_validate, heads_have_fakes))
def examples_are_answered(subject: Subject) -> Iterator[str]:
    """Every example of every request is answered, and the answer can be written as JSON."""
    if not subject.served_tasks:
        raise NotApplicableError("the plugin has neither tasks nor hooks")
    for trial in trials(subject):
        try:
            trial.ask(trial.body)
        except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
            yield f"{trial.where}: {tell(error)}"


@check(since="0.1", needs=(examples_are_answered,))
def order_is_kept(subject: Subject) -> Iterator[str]:
    """The same inputs in reverse order get the same answers in reverse order."""
    for trial, inputs in _batches(subject):
        batch = trial.ask({**trial.body, "input": inputs})
        reverse = trial.ask({**trial.body, "input": inputs[::-1]})
        for field in _fields_by_item(batch, trial.ask({**trial.body, "input": inputs[:1]})):
            if not _is_same(_items(batch, field), _items(reverse, field)[::-1]):
                yield f"{trial.where}: {field!r} is not in the order of 'input'."


@check(since="0.1", needs=(examples_are_answered,))
def batch_equals_singles(subject: Subject) -> Iterator[str]:
    """Several inputs in one request get the answers that each gets alone."""
    for trial, inputs in _batches(subject):
        batch = trial.ask({**trial.body, "input": inputs})
        singles = [trial.ask({**trial.body, "input": [one]}) for one in inputs]
        for field in _fields_by_item(batch, singles[0]):
            if not _is_same(_items(batch, field), [item for single in singles for item in _items(single, field)]):
                yield f"{trial.where}: {field!r} of {BATCH} inputs is not what each of them gets alone."


@check(since="0.1", needs=(examples_are_answered,))
def empty_batch_is_clear(subject: Subject) -> Iterator[str]:
    """An empty list in a request is answered, or refused with a reason."""
    has_lists = False
    for trial in trials(subject):
        for field in [name for name, value in trial.body.items() if isinstance(value, list)]:
            has_lists = True
            try:
                trial.ask({**trial.body, field: []})
            except RequestError as error:
                if not str(error):
                    yield f"{trial.where} with an empty {field!r} is refused without a word."
            except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
                yield f"{trial.where} with an empty {field!r}: {tell(error)}"
    if not has_lists:
        raise NotApplicableError("no example holds a list")


@check(since="0.1", needs=(examples_are_answered,))
def requests_keep_apart(subject: Subject) -> Iterator[str]:
    """Of 16 requests in flight at the same time, each gets the answer that it gets alone."""
    gate = threading.Event()
    gate.set()

    class GateEngine(FakeEngine):
        def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
            gate.wait()
            return super().forward(prompts)

    has_variants = False
    for trial in trials(subject, GateEngine):
        bodies = trial.variants(CONCURRENT)
        done = trial.served.stats().prompts_done
        alone = [trial.ask(body) for body in bodies]
        if all(answer == alone[0] for answer in alone):
            continue
        has_variants = True
        together = trial.ask_together(bodies, gate=gate, prompts=trial.served.stats().prompts_done - done)
        wrong = [answer for answer, expected in zip(together, alone, strict=True) if not _is_same(answer, expected)]
        if wrong:
            told = f": {tell(wrong[0])}" if isinstance(wrong[0], Exception) else " get another answer than alone."
            yield (
                f"{trial.where}: {len(wrong)} of {CONCURRENT} requests at a time{told} What belongs to a request goes "
                "into Prepared.state, not on the processor."
            )
    if not has_variants:
        raise NotApplicableError("no example has a text that changes the answer")


@check(since="0.1", needs=(examples_are_answered,))
def input_is_not_mutated(subject: Subject) -> Iterator[str]:
    """Neither a request nor what the engine gave is changed: wrappers and caches may hold both."""
    given: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    class RecordingEngine(FakeEngine):
        def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
            outputs = super().forward(prompts)
            given.extend((array, array.copy()) for output in outputs for array in (output.data, *output.parts.values()))
            return outputs

    for trial in trials(subject, RecordingEngine):
        request = trial.decode(trial.body)
        before = copy.deepcopy(request.model_dump())
        trial.served.run(trial.operation.name, request)
        if request.model_dump() != before:
            yield f"{trial.where}: its request is changed. Work on a copy."
        if not all(np.array_equal(array, copied, equal_nan=True) for array, copied in given):
            yield f"{trial.where}: an array of its outputs is changed. Work on a copy."
        given.clear()


@check(since="0.1", needs=(examples_are_answered,))
def answers_are_deterministic(subject: Subject) -> Iterator[str]:
    """The same request gets the same answer, again and from a new processor."""
    first = [(trial.where, trial.ask(trial.body), trial.ask(trial.body)) for trial in trials(subject)]
    for (where, answer, again), anew in zip(first, trials(subject), strict=True):
        if answer != again:
            yield f"{where}: asked twice, it gives two answers."
        elif answer != anew.ask(anew.body):
            yield f"{where}: a new processor gives another answer."


def _batches(subject: Subject) -> Iterator[tuple[Trial, list[str]]]:
    """Yield the trials whose request has the standard field `input`, with a batch of texts for it."""
    has_batches = False
    for trial in trials(subject):
        given = trial.body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            continue
        inputs = [f"{texts[i % len(texts)]} {i}" for i in range(BATCH)]
        try:
            trial.decode({**trial.body, "input": inputs})
        except RequestError:
            continue
        has_batches = True
        yield trial, inputs
    if not has_batches:
        raise NotApplicableError("no request has a field 'input' that takes a list of texts")


def _fields_by_item(batch: Body, single: Body) -> list[str]:
    """Return the fields of a response that have an item for each input."""
    return [
        field
        for field, items in batch.items()
        if isinstance(items, list) and len(items) == BATCH and len(_items(single, field)) == 1
    ]


def _items(answer: Body, field: str) -> list[object]:
    """Return the items of a field, without the index that some responses write into each."""
    items = answer.get(field)
    if not isinstance(items, list):
        return []
    return [{k: v for k, v in item.items() if k != "index"} if isinstance(item, dict) else item for item in items]


def _is_same(one: object, other: object) -> bool:
    """Return whether two JSON values are equal, numbers up to rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    return one == other
