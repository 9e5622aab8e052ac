"""Checks of requests that hold a list of texts: each item is answered in its place, as it is alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poolkit.errors import RequestError
from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.checks.bodies import paths, put, show_path, value_at
from poolkit.testing.checks.cases import cases
from poolkit.testing.checks.check import check
from poolkit.testing.checks.lists import BATCH, TextList, is_same, text_lists
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error

__all__ = [
    "batch_equals_singles",
    "blanks_keep_their_place",
    "duplicates_keep_their_place",
    "empty_batch_is_clear",
    "order_is_kept",
]


@check(since="0.1", needs=(examples_are_answered,))
def order_is_kept(plugin: PluginUnderTest) -> Iterator[str]:
    """The same inputs in reverse order get the same answers in reverse order."""
    for texts in text_lists(plugin):
        batch, reverse = texts.ask(texts.items), texts.ask(texts.items[::-1])
        for field in texts.fields:
            rows = texts.rows(reverse, field, texts.items[::-1])
            if not is_same(texts.rows(batch, field, texts.items), rows[::-1]):
                yield f"{texts.case.where}: {_name(field)} is not in the order of {texts.where!r}."


@check(since="0.1", needs=(examples_are_answered,))
def batch_equals_singles(plugin: PluginUnderTest) -> Iterator[str]:
    """Several inputs in one request get the answers that each gets alone, unless they are weighed together."""
    is_examined = False
    for texts in text_lists(plugin):
        if texts.is_listwise:
            continue
        is_examined = True
        batch = texts.ask(texts.items)
        singles = [texts.ask([item]) for item in texts.items]
        for field in texts.fields:
            alone = [row for single in singles for row in texts.rows(single, field, texts.items[:1])]
            if not is_same(texts.rows(batch, field, texts.items), alone):
                yield (
                    f"{texts.case.where}: {_name(field)} of {BATCH} items of {texts.where!r} is not what each of them "
                    "gets alone."
                )
    if not is_examined:
        raise NotApplicableError("the items of every list of texts are weighed together")


@check(since="0.1", needs=(order_is_kept, batch_equals_singles))
def duplicates_keep_their_place(plugin: PluginUnderTest) -> Iterator[str]:
    """An input that stands in a request several times is answered each time."""
    for texts in text_lists(plugin):
        first, second = texts.items[:2]
        yield from _misplaced(texts, [first, second, first, first, second], [0, 1, 0, 0, 1], "some of them twice")


@check(since="0.1", needs=(order_is_kept, batch_equals_singles))
def blanks_keep_their_place(plugin: PluginUnderTest) -> Iterator[str]:
    """An empty text among others is answered in its place, or the request is refused."""
    for texts in text_lists(plugin):
        items = [texts.items[0], texts.with_text(""), texts.items[1], texts.with_text(" "), texts.items[2]]
        yield from _misplaced(texts, items, [0, None, 1, None, 2], "two of them blank")


def _misplaced(texts: TextList, items: Sequence[object], places: Sequence[int | None], what: str) -> Iterator[str]:
    """Say which fields do not answer each item, or not as they answer the same one of `texts`; a refusal is fine.

    Args:
        texts: the list.
        items: the items to ask for.
        places: the place of each in `texts`; None if it is not there.
        what: sets them apart, for the message.
    """
    answer = texts.try_to_ask(items)
    if isinstance(answer, RequestError):
        return
    where = f"{texts.case.where} with {len(items)} items in {texts.where!r}, {what}"
    if isinstance(answer, Exception):
        yield f"{where}: {format_error(answer)}"
        return
    expected = texts.ask(texts.items)
    for field in texts.fields:
        rows, known = texts.rows(answer, field, items), texts.rows(expected, field, texts.items)
        if len(rows) != len(items):
            yield f"{where}: {_name(field)} has {len(rows)} items."
        elif not texts.is_listwise and not all(
            place is None or is_same(row, known[place]) for row, place in zip(rows, places, strict=True)
        ):
            yield f"{where}: {_name(field)} does not give each what it gets in other company."


@check(since="0.1", needs=(examples_are_answered,))
def empty_batch_is_clear(plugin: PluginUnderTest) -> Iterator[str]:
    """An empty list in a request is answered, or refused with a reason."""
    has_lists = False
    for case in cases(plugin):
        for path in paths(case.body):
            if not isinstance(value_at(case.body, path), list):
                continue
            has_lists = True
            answer = case.try_to_ask(put(case.body, path, []))
            if isinstance(answer, RequestError):
                if not str(answer):
                    yield f"{case.where} with an empty {show_path(path)!r} is refused without a word."
            elif isinstance(answer, Exception):
                yield f"{case.where} with an empty {show_path(path)!r}: {format_error(answer)}"
    if not has_lists:
        raise NotApplicableError("no example holds a list")


def _name(field: tuple[str | int, ...]) -> str:
    return repr(show_path(field)) if field else "the answer"
