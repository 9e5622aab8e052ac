"""Checks of what a plugin leaves behind: in memory, in the log, and open."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.checks.bodies import Body, texts_in, value_at
from poolkit.testing.checks.cases import Case, cases, one_per_operation
from poolkit.testing.checks.check import check
from poolkit.testing.checks.contract import hooks_bind
from poolkit.testing.checks.leaks import Work, blocks_left, find_line, is_left_running, left_open
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.stacks import find_culprits

__all__ = ["caches_are_bounded", "close_is_clean", "log_is_discreet", "memory_is_given_back", "nothing_is_left_open"]

REQUESTS = 60
"""Requests before the memory is counted, and between the first count and the second."""
DISTINCT, PARTS = 750, 5
"""The number of different requests that are asked, and that of their parts: after each the memory is counted."""
MAX_OPERATIONS = 3
"""The number of operations that are asked so many."""

COUNTS = 12
"""The number of times that memory must be left behind: at first something may be set up, or a small cache fills."""

MAX_BLOCKS = 0.9
"""Blocks of memory that a request may leave behind: Python's own count, which stands still in a sound process."""

TRACED = 20
"""Requests that are traced to find the line which leaves memory behind."""

MAX_SHOWN = 80


@check(since="0.1", needs=(examples_are_answered,))
def memory_is_given_back(plugin: PluginUnderTest) -> Iterator[str]:
    """A request that is asked again and again leaves nothing behind."""
    for case in one_per_operation(plugin):
        ask, ask_less = (_asking(case, [case.body] * count) for count in (REQUESTS, TRACED))
        if all(blocks_left(ask, ask) > MAX_BLOCKS * REQUESTS for _ in range(COUNTS)):
            yield (
                f"{case.where}: each time it is asked, memory is left behind{find_line(plugin, ask_less, ask_less)}. "
                "What belongs to a request goes into Prepared.state."
            )


@check(since="0.1", needs=(memory_is_given_back,), is_advice=True)
def caches_are_bounded(plugin: PluginUnderTest) -> Iterator[str]:
    """The memory that different requests leave behind is bounded."""
    examined = 0
    for case in one_per_operation(plugin):
        bodies = case.variants(DISTINCT + 2 * TRACED)
        if not bodies:
            continue
        examined += 1
        size = DISTINCT // PARTS
        parts = [_asking(case, bodies[start : start + size]) for start in range(0, DISTINCT, size)]
        if all(blocks_left(before, after) > MAX_BLOCKS * size for before, after in pairwise(parts)):
            last = _asking(case, bodies[-2 * TRACED : -TRACED]), _asking(case, bodies[-TRACED:])
            yield (
                f"{case.where}: {DISTINCT} different requests later each one still leaves memory behind"
                f"{find_line(plugin, *last)}. If nothing bounds what keeps them, give it a bound."
            )
        if examined == MAX_OPERATIONS:
            return
    if not examined:
        raise NotApplicableError("no example has a text that may be any")


@check(since="0.1", needs=(examples_are_answered,))
def log_is_discreet(plugin: PluginUnderTest) -> Iterator[str]:
    """No text of a request is logged or printed, at any level."""
    for case in cases(plugin):
        for body in case.variants(2)[1:]:
            texts = _texts(body) - _texts(case.body)
            with _listening() as heard:
                case.try_to_ask(body)
            told = next((line for line in heard() if any(text in line for text in texts)), None)
            if told is not None:
                shown = told if len(told) <= MAX_SHOWN else f"{told[: MAX_SHOWN - 1]}…"
                yield f"{case.where}: a text of the request gets into the log: {shown!r}."


@check(since="0.1", needs=(hooks_bind,))
def close_is_clean(plugin: PluginUnderTest) -> Iterator[str]:
    """Closing processors and wrappers raises nothing."""
    for task in plugin.served_tasks:
        with log_records() as records, plugin.serve(task):
            records.clear()
        for record in records:
            if record.exc_info is not None and record.exc_info[1] is not None:
                yield f"{record.getMessage()} {format_error(record.exc_info[1])}"


@check(since="0.1", needs=(examples_are_answered, close_is_clean))
def nothing_is_left_open(plugin: PluginUnderTest) -> Iterator[str]:
    """Once everything is closed, no thread runs and no file or socket is open that was not before."""
    for case in cases(plugin):
        case.try_to_ask(case.body)
    gc.collect()
    for thread in threading.enumerate():
        if thread in (*plugin.threads_at_start, threading.current_thread()):
            continue
        places = find_culprits(plugin.is_own, thread)
        if places and is_left_running(thread):
            yield f"the thread {thread.name!r} still runs in {places[0]}. End it in close()."
    for target in left_open(plugin.files_at_start):
        yield f"{target} is still open. Close it in close()."


def _asking(case: Case, bodies: Sequence[Body]) -> Work:
    """Return what asks for an answer to each request."""

    def ask() -> None:
        for body in bodies:
            case.served.run(case.operation.name, case.decode(body))

    return ask


def _texts(body: Body) -> set[str]:
    return {str(value_at(body, path)) for path in texts_in(body)}


@contextlib.contextmanager
def log_records() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged at any level, by any logger that passes it on."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    root, collector = logging.getLogger(), Collector()
    level, disabled = root.level, root.manager.disable
    root.addHandler(collector)
    root.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)
    try:
        yield records
    finally:
        root.removeHandler(collector)
        root.setLevel(level)
        logging.disable(disabled)


@contextlib.contextmanager
def _listening() -> Iterator[Callable[[], list[str]]]:
    """Collect what is logged or printed; yield a function that returns it."""
    printed = io.StringIO()
    with log_records() as records, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield lambda: [*(record.getMessage() for record in records), *printed.getvalue().splitlines()]
