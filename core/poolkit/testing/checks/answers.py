"""Checks of the answers to a plugin's own examples, through the real pipeline around a fake engine."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import Batch, PooledOutput, States
from poolkit.errors import OverloadedError
from poolkit.testing.checks.cases import Case, cases
from poolkit.testing.checks.check import check
from poolkit.testing.checks.contract import examples_validate, heads_have_fakes, hooks_bind
from poolkit.testing.checks.lists import is_same
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.child import ask_child
from poolkit.testing.fake_engine import FakeBackbone
from poolkit.testing.serving import fake_model
from poolkit.testing.stacks import find_culprits

__all__ = [
    "answers_are_deterministic",
    "answers_are_the_same_elsewhere",
    "examples_are_answered",
    "hooks_are_quick",
    "input_is_not_mutated",
    "requests_keep_apart",
]

BUDGET_S = 1.0
"""The time that all hooks of a request may take together. The fake engine takes no time that counts."""

CONCURRENT = 16
ELSEWHERE = 4
ELSEWHERE_LIMIT_S = 25.0


@check(since="0.1", needs=(hooks_bind, examples_validate, heads_have_fakes))
def hooks_are_quick(plugin: PluginUnderTest) -> Iterator[str]:
    """The hooks of a request take less than a second, once they have been called before."""
    if not plugin.served_tasks:
        raise NotApplicableError("the plugin has neither tasks nor hooks")
    for case in cases(plugin):
        took_s, places = _time(plugin, case)
        if took_s > BUDGET_S:
            took_s, places = _time(plugin, case)
        if took_s > BUDGET_S:
            where = f" After {BUDGET_S:g} s it was in {', and in '.join(places)}." if places else ""
            yield f"{case.where} takes {took_s:.1f} s.{where}"
            return  # the others may well be as slow


def _time(plugin: PluginUnderTest, case: Case) -> tuple[float, list[str]]:
    """Return how many seconds an example takes, and where in the plugin it was when the budget was used up."""
    places: list[str] = []
    timer = threading.Timer(BUDGET_S, lambda: places.extend(find_culprits(plugin.is_own)))
    timer.daemon = True
    timer.start()
    started = time.perf_counter()
    try:
        case.try_to_ask(case.body)
    finally:
        timer.cancel()
    return time.perf_counter() - started, places


@check(since="0.1", needs=(hooks_are_quick,))
def examples_are_answered(plugin: PluginUnderTest) -> Iterator[str]:
    """Every example of every request is answered, and the answer can be written as JSON: its numbers are finite."""
    for case in cases(plugin):
        answer = case.try_to_ask(case.body)
        if isinstance(answer, Exception):
            culprit = f" Without {plugin.installed.name} it is answered." if _is_answered_without(plugin, case) else ""
            yield f"{case.where}: {format_error(answer)}{culprit}"


def _is_answered_without(plugin: PluginUnderTest, case: Case) -> bool:
    """Return whether an example of another plugin's is answered if the plugin has nothing around it."""
    task = case.served.task.name
    if f"{plugin.installed.name}:{task}" in plugin.served_tasks:
        return False
    with fake_model(task) as served:
        return not isinstance(replace(case, served=served).try_to_ask(case.body), Exception)


@check(since="0.1", needs=(examples_are_answered,))
def requests_keep_apart(plugin: PluginUnderTest) -> Iterator[str]:
    """Of 16 requests in flight at the same time, each gets the answer that it gets alone."""
    gate = threading.Event()
    gate.set()

    class GatedBackbone(FakeBackbone):
        def __call__(self, batch: Batch) -> States[NDArray[np.float32]]:
            gate.wait()
            return super().__call__(batch)

    has_variants = False
    for case in cases(plugin, GatedBackbone):
        bodies = case.variants(CONCURRENT)
        done = case.served.stats().prompts_done
        alone = [case.ask(body) for body in bodies]
        if all(answer == alone[0] for answer in alone):
            continue
        has_variants = True
        together = case.ask_together(bodies, gate=gate, prompts=case.served.stats().prompts_done - done)
        wrong = [
            answer
            for answer, expected in zip(together, alone, strict=True)
            if not is_same(answer, expected) and not isinstance(answer, OverloadedError)
        ]
        if wrong:
            told = (
                f": {format_error(wrong[0])}" if isinstance(wrong[0], Exception) else " get another answer than alone."
            )
            yield (
                f"{case.where}: {len(wrong)} of {CONCURRENT} requests at a time{told} What belongs to a request goes "
                "into Prepared.state, not on the processor."
            )
    if not has_variants:
        raise NotApplicableError("no example has a text that changes the answer")


@check(since="0.1", needs=(examples_are_answered,))
def input_is_not_mutated(plugin: PluginUnderTest) -> Iterator[str]:
    """Neither a request nor what the engine gave is changed: wrappers and caches may hold both."""
    given: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    def record(outputs: Sequence[PooledOutput]) -> Sequence[PooledOutput]:
        given.extend((array, array.copy()) for output in outputs for array in (output.data, *output.parts.values()))
        return outputs

    for case in cases(plugin, outputs=record):
        request = case.decode(case.body)
        before = copy.deepcopy(request.model_dump())
        case.served.run(case.operation.name, request)
        if request.model_dump() != before:
            yield f"{case.where}: its request is changed. Work on a copy."
        if not all(np.array_equal(array, copied, equal_nan=True) for array, copied in given):
            yield f"{case.where}: an array of its outputs is changed. Work on a copy."
        given.clear()


@check(since="0.1", needs=(examples_are_answered,))
def answers_are_deterministic(plugin: PluginUnderTest) -> Iterator[str]:
    """The same request gets the same answer, again and from a new processor."""
    first = [(case.where, case.ask(case.body), case.ask(case.body)) for case in cases(plugin)]
    for (where, answer, again), anew in zip(first, cases(plugin), strict=True):
        if answer != again:
            yield f"{where}: asked twice, it gives two answers."
        elif answer != anew.ask(anew.body):
            yield f"{where}: a new processor gives another answer."


@check(since="0.1", needs=(answers_are_deterministic,))
def answers_are_the_same_elsewhere(plugin: PluginUnderTest) -> Iterator[str]:
    """Another process, asked the same in reverse order, answers the same: nothing is left of earlier requests."""
    bodies = {case.where: case.variants(ELSEWHERE) or [case.body] for case in cases(plugin)}
    question = {**plugin.question, "bodies": bodies}
    answer = ask_child("poolkit.testing.answer_probe", question, limit_s=ELSEWHERE_LIMIT_S)
    elsewhere = cast("dict[str, list[object]]", answer)
    for case in cases(plugin):
        answers = [case.ask(body) for body in bodies[case.where]]
        if not is_same(answers, elsewhere[case.where]):
            yield (
                f"{case.where}: another process that was asked before in another order gives another answer. What a "
                "processor keeps must be found again by all that it depends on, and the order of a set is not one."
            )
