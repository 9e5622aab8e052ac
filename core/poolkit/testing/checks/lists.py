"""Finds the lists of texts in a request, by their type, and the response's answer to each of their items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from poolkit.contract import Prepared
from poolkit.errors import PoolkitError, RequestError
from poolkit.testing.checks.bodies import Body, Path, paths, put, show_path, texts_in, value_at
from poolkit.testing.checks.cases import Case, cases
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest

__all__ = ["BATCH", "TextList", "is_same", "text_lists"]

BATCH = 5

REL_TOL, ABS_TOL = 1e-4, 1e-6
"""A product over many rows may add up in another order than one over a single row, in float32."""


@dataclass(frozen=True, slots=True)
class TextList:
    """A list in a request whose items are texts, or hold texts, and are answered one by one.

    Attributes:
        case: the operation and its example.
        body: the example, or what it cannot do without.
        path: the place of the list in the request.
        items: as many different ones as `BATCH`.
        free: the places in an item of the texts that may be any.
        fields: the places in the response of lists with one item for each of them.
        is_listwise: True if the answer to an item may depend on the others: the response sorts them, or the model reads
            them as a group.
    """

    case: Case
    body: Body
    path: Path
    items: tuple[object, ...]
    free: tuple[Path, ...]
    fields: tuple[Path, ...] = ()
    is_listwise: bool = False

    @property
    def where(self) -> str:
        """The list as messages name it."""
        return show_path(self.path)

    def ask(self, items: Sequence[object]) -> object:
        """Return the answer to a request with other items in the list."""
        return self.case.ask(put(self.body, self.path, list(items)))

    def try_to_ask(self, items: Sequence[object]) -> object:
        """Return the answer, or the exception."""
        return self.case.try_to_ask(put(self.body, self.path, list(items)))

    def rows(self, answer: object, field: Path, items: Sequence[object]) -> list[object]:
        """Return what a field of an answer says of each item, in the order of the items.

        Some responses are sorted and name an item by its index, others repeat its text.
        """
        try:
            rows = value_at(answer, field)
        except (KeyError, IndexError, TypeError):
            return []
        if not isinstance(rows, list):
            return []
        order = _order(answer, field, rows, items)
        return [_without_index(rows[place]) for place in order]

    def with_text(self, text: str) -> object:
        """Return an item that has this text in place of its own."""
        return _with_text(self.items[0], self.free, lambda _: text)


def text_lists(plugin: PluginUnderTest) -> Iterator[TextList]:
    """Yield the lists of texts in all examples whose items are answered one by one."""
    has_lists = False
    for case in cases(plugin):
        for found in _lists_of(case):
            has_lists = True
            yield found
    if not has_lists:
        raise NotApplicableError("no request has a list of texts with an answer for each")


def _lists_of(case: Case) -> Iterator[TextList]:
    for path in paths(case.body):
        value = value_at(case.body, path)
        if isinstance(value, str):
            value = [value]  # a text that may be a list of texts as well
        if not isinstance(value, list) or not value or not all(list(texts_in(item)) for item in value):
            continue
        free = _free_texts(case, path, value[0])
        items = tuple(_with_text(value[i % len(value)], free, partial("{1} {0}".format, i)) for i in range(BATCH))
        for body in (case.body, _shortest(case, path)):
            answered = _answered(TextList(case, body, path, items, free))
            if answered is not None:
                yield answered
                break


def _answered(texts: TextList) -> TextList | None:
    """Return the list with the fields that answer its items, if it is a list and there are any."""
    try:
        one, two, many = (_prepare(texts, count) for count in (1, 2, BATCH))
    except PoolkitError:
        return None
    per_item = len(two.prompts) - len(one.prompts)
    if per_item == 0 or len(many.prompts) - len(one.prompts) != per_item * (BATCH - 1):
        return None  # the model reads the items together
    single, batch = texts.try_to_ask(texts.items[:1]), texts.try_to_ask(texts.items)
    if isinstance(single, Exception) or isinstance(batch, Exception):
        return None
    fields = tuple(path for path in ((), *paths(batch)) if _length(batch, path) == BATCH and _length(single, path) == 1)
    if not fields:
        return None
    is_ranked = any(_is_ranked(batch, field, texts.items) for field in fields)
    is_group = _largest_group(many) > _largest_group(one)
    return replace(texts, fields=fields, is_listwise=is_ranked or is_group)


def _is_ranked(answer: object, field: Path, items: Sequence[object]) -> bool:
    """Return whether a field is in an order of its own, and tells by the texts alone which is whose."""
    rows = value_at(answer, field)
    assert isinstance(rows, list)
    return _order_of_indices(rows) is None and _order_of_texts(answer, field, items) not in (None, [*range(len(items))])


def _largest_group(prepared: Prepared) -> int:
    """Return the number of prompts in the largest group."""
    return max(Counter(group for group in prepared.groups or () if group is not None).values(), default=0)


def _prepare(texts: TextList, count: int) -> Prepared:
    body = put(texts.body, texts.path, list(texts.items[:count]))
    operation = texts.case.served.operations[texts.case.operation.name]
    return operation.pre_process(texts.case.decode(body))


def _shortest(case: Case, path: Path) -> Body:
    """Return the example without the fields that it can do without, such as how many results are wanted."""
    fields = case.operation.request.model_fields.items()
    needed = {field.alias or name for name, field in fields if field.is_required()} | {path[0]}
    return {name: value for name, value in case.body.items() if name in needed}


def _length(answer: object, path: Path) -> int | None:
    try:
        value = value_at(answer, path)
    except (KeyError, IndexError, TypeError):
        return None
    return len(value) if isinstance(value, list) else None


def _order(answer: object, field: Path, rows: list[object], items: Sequence[object]) -> list[int]:
    """Return where the row of each item stands."""
    return _order_of_indices(rows) or _order_of_texts(answer, field, items) or list(range(len(rows)))


def _order_of_indices(rows: Sequence[object]) -> list[int] | None:
    """Return where the row of each item stands, if rows have the item's index."""
    indices = [row.get("index") for row in rows if isinstance(row, dict)]
    if sorted(index for index in indices if isinstance(index, int)) == list(range(len(rows))):
        return [indices.index(number) for number in range(len(rows))]
    return None


def _order_of_texts(answer: object, field: Path, items: Sequence[object]) -> list[int] | None:
    """Return where each item's own text stands: in its row, or in the same place of a list beside it."""
    texts = [{value_at(item, path) for path in texts_in(item)} for item in items]
    beside = value_at(answer, field[:-1]) if field else {}
    lists = [value_at(answer, field), *(beside.values() if isinstance(beside, dict) else ())]
    for rows in lists:
        if not isinstance(rows, list) or len(rows) != len(items):
            continue
        told = [{value_at(row, path) for path in texts_in(row)} for row in rows]
        places = [[place for place, words in enumerate(told) if own <= words] for own in texts]
        if all(len(found) == 1 for found in places) and len({found[0] for found in places}) == len(items):
            return [found[0] for found in places]
    return None


def _without_index(row: object) -> object:
    return {key: value for key, value in row.items() if key != "index"} if isinstance(row, dict) else row


def _free_texts(case: Case, at: Path, item: object) -> tuple[Path, ...]:
    """Return which texts of a list's item may be any."""
    free = []
    for path in texts_in(item):
        changed = _with_text(item, (path,), lambda text: f"{text} 0")
        try:
            case.decode(put(case.body, at, [changed]))
        except RequestError:
            continue
        free.append(path)
    return tuple(free)


def _with_text(item: object, free: Sequence[Path], change: Callable[[str], str]) -> object:
    """Return a copy of an item with some of its texts changed."""
    changed: Body = {"item": item}
    for path in texts_in(item):
        if path not in free:
            continue
        changed = put(changed, ("item", *path), change(str(value_at(item, path))))
    return changed["item"]


def is_same(one: object, other: object) -> bool:
    """Return whether two JSON values are equal, numbers up to rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    return one == other
