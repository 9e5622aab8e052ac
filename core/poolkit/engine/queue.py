"""The prompts that wait for the model, in buckets of like length: what runs next is found without sorting them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from poolkit.contract import EncodedPrompt
    from poolkit.engine.job import Job

__all__ = ["PromptQueue", "Unit", "make_units"]

STEPS_PER_DOUBLING = 8
"""Buckets from one length to its double: lengths in a bucket differ by an eighth at most."""


class Item(Protocol):
    """A prompt that waits."""

    @property
    def prompt(self) -> EncodedPrompt:
        """The tokens that are run."""
        ...

    @property
    def job(self) -> Job:
        """The job that it belongs to."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


class Unit(Generic[ItemT]):
    """A prompt, or the prompts of a group, which are taken, cancelled and failed as a whole.

    Attributes:
        items: the prompts.
        number: counts units in the order in which they were queued.
        tokens: the cost of all prompts.
        bucket: of its longest prompt.
        kept_key: names the query that the model keeps for documents, if it is one.
        document_key: names the query that it is scored against inside the engine, if it is a document.
        is_gone: True once it was taken or dropped.
    """

    __slots__ = ("bucket", "document_key", "is_gone", "items", "kept_key", "number", "tokens")

    def __init__(self, items: Sequence[ItemT]) -> None:
        costs = [item.prompt.cost for item in items]
        self.items = items
        self.number = -1
        self.tokens = sum(costs)
        self.bucket = _bucket(max(costs))
        self.kept_key: str | None = None
        self.document_key: str | None = None
        self.is_gone = False
        late = items[0].prompt.params.late_interaction
        if late is not None and late.mode == "cache_query":
            self.kept_key = late.query_key
        elif late is not None:
            self.document_key = late.query_key

    @property
    def is_over(self) -> bool:
        """True if its job is over: nobody wants it any more."""
        return self.items[0].job.is_over

    @property
    def is_wanted(self) -> bool:
        """True if it still waits and nobody has given it up."""
        return not self.is_gone and not self.items[0].job.is_over


def make_units(items: Sequence[ItemT]) -> list[Unit[ItemT]]:
    """Return prompts as what is queued: those of one group, which come together, as one."""
    if all(item.prompt.group is None for item in items):
        return [Unit((item,)) for item in items]
    groups: dict[object, list[ItemT]] = {}
    for item in items:
        group = item.prompt.group
        groups.setdefault(id(item) if group is None else group, []).append(item)
    return [Unit(members) for members in groups.values()]


class PromptQueue(Generic[ItemT]):
    """Units that wait. A document waits apart until its query has run, or is about to run in the same batch.

    Attributes:
        tokens: of all units that wait, those that wait apart and those that were given up lately included.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._count = 0
        self._by_age: deque[Unit[ItemT]] = deque()
        self._buckets: defaultdict[int, deque[Unit[ItemT]]] = defaultdict(deque)
        self._queries: deque[Unit[ItemT]] = deque()
        self._documents: dict[str, list[Unit[ItemT]]] = {}  # by the key of a query that has not run yet

    def __bool__(self) -> bool:
        """Return whether there is anything to take now, but for what was given up since the last one was taken."""
        return bool(self._by_age)

    def add(self, units: Iterable[Unit[ItemT]]) -> None:
        """Queue units: queries before the documents that they are for."""
        for unit in units:
            unit.number = self._count
            self._count += 1
            self.tokens += unit.tokens
            if unit.document_key in self._documents:
                self._documents[unit.document_key].append(unit)
                continue
            self._by_age.append(unit)
            if unit.kept_key is None:
                self._buckets[unit.bucket].append(unit)
            else:
                self._queries.append(unit)
                self._documents.setdefault(unit.kept_key, [])

    def take(self, *, max_tokens: int, max_prompts: int) -> list[Unit[ItemT]]:
        """Take the unit that has waited longest, then queries, then those nearest to the first in length.

        Nothing is taken after the first one that does not fit. The units are in the order in which they were queued.
        """
        first = self._oldest()
        if first is None:
            self._buckets.clear()
            self._queries.clear()
            return []
        taken = [first]
        tokens, prompts = first.tokens, len(first.items)
        self._leave(first)
        for unit in self._candidates(first):
            tokens, prompts = tokens + unit.tokens, prompts + len(unit.items)
            if tokens > max_tokens or prompts > max_prompts:
                break
            self._leave(unit)
            taken.append(unit)
        self._drop_leading()
        return sorted(taken, key=lambda unit: unit.number)

    def finish(self, units: Iterable[Unit[ItemT]]) -> None:
        """Let the documents go whose query is among units that have run, or failed."""
        for unit in units:
            waiting = self._documents.pop(unit.kept_key, []) if unit.kept_key is not None else []
            for document in reversed(waiting):
                if document.is_wanted:
                    self._by_age.appendleft(document)  # they are older than most
                    self._buckets[document.bucket].append(document)
                elif not document.is_gone:
                    self._leave(document)

    def _oldest(self) -> Unit[ItemT] | None:
        self._drop_leading()
        return self._by_age.popleft() if self._by_age else None

    def _drop_leading(self) -> None:
        """Drop what is not wanted any more, until the oldest unit is one that is."""
        while self._by_age and not self._by_age[0].is_wanted:
            self._drop(self._by_age.popleft())

    def _candidates(self, first: Unit[ItemT]) -> Iterator[Unit[ItemT]]:
        """Yield what may go with the first one, best first. Whatever is yielded and not taken stays queued."""
        if not self._by_age and first.kept_key is None:  # it was the last
            self._buckets.clear()
            self._queries.clear()
            return
        keys = [] if first.kept_key is None else [first.kept_key]
        while self._queries:
            query = self._queries[0]
            if query.is_wanted:
                yield query
                if query.is_gone and query.kept_key is not None:
                    keys.append(query.kept_key)
            self._queries.popleft()
            self._drop(query)
        documents: defaultdict[int, list[Unit[ItemT]]] = defaultdict(list)
        for key in keys:
            for document in self._documents.get(key, ()):  # gone if the query was queued twice, and ran
                documents[document.bucket].append(document)
        for bucket in sorted({*self._buckets, *documents}, key=lambda found: abs(found - first.bucket)):
            yield from (document for document in documents[bucket] if document.is_wanted)
            waiting = self._buckets[bucket]
            while waiting:
                if waiting[0].is_wanted:
                    yield waiting[0]
                waiting.popleft()
            del self._buckets[bucket]

    def _drop(self, unit: Unit[ItemT]) -> None:
        """Drop a unit that was given up. So were the documents of a query, or their processor scores them."""
        if unit.is_gone:
            return
        self._leave(unit)
        if unit.kept_key is not None:
            self.finish([unit])

    def _leave(self, unit: Unit[ItemT]) -> None:
        unit.is_gone = True
        self.tokens -= unit.tokens


def _bucket(length: int) -> int:
    """Return the bucket of a length: buckets grow with the lengths in them."""
    doubling = max(length, 1).bit_length() - 1
    return doubling * STEPS_PER_DOUBLING + ((max(length, 1) * STEPS_PER_DOUBLING) >> doubling) - STEPS_PER_DOUBLING
