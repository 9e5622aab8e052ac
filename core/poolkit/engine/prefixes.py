"""Runs once what several prompts of a batch begin with: a reranker's instruction and query, before each document.

In a causal model the hidden states of a prompt's first tokens do not depend on those behind them. So an engine that can
is given a common start as a prompt of its own, and of the prompts what is behind it (`Batch.prefixes`). Its hidden
states are put together again: poolers see every prompt whole, and nothing but the tokens decides what is shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from poolkit.contract import Batch, States
from poolkit.engine.arrays import ArrayT, operations_of
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from poolkit.contract import Backbone

__all__ = ["SharedBatch", "run_batch", "share_prefixes"]

FEWEST_TOKENS = 16
"""A start that is shorter is not worth the copies of its keys and values."""

SMALLEST_SAVING = 1 / 16
"""The part of a batch's tokens that sharing must save: less does not pay for putting the states together."""

MOST_SPLITS = 16
"""Levels of prompts that have more in common than those around them."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedBatch:
    """A batch whose common starts stand in it once.

    Attributes:
        batch: what runs.
        rows: of each token of the whole batch, its row in the states of what runs. (tokens,)
    """

    batch: Batch
    rows: NDArray[np.int64]

    def whole(self, states: States[ArrayT]) -> States[ArrayT]:
        """Return the states of the whole batch.

        Raises EngineError where the engine did not give a row for each token.
        """
        if states.tokens is None or states.segments is not None:
            raise EngineError("The engine shares prefixes, so that it must give a row for each token.")
        operations = operations_of(states.tokens)
        taps = {layer: operations.take(tap, self.rows) for layer, tap in states.taps.items()}
        return States(operations.take(states.tokens, self.rows), taps=taps)


class _Group(NamedTuple):
    """Prompts with a common start: a part of the order of all prompts by their tokens."""

    first: int
    stop: int
    length: int

    @property
    def saved(self) -> int:
        """Tokens that need not run."""
        return (self.stop - self.first - 1) * self.length


def run_batch(backbone: Backbone[ArrayT], batch: Batch) -> States[ArrayT]:
    """Return the hidden states of a batch, whose common starts run once where the engine can do so."""
    shared = share_prefixes(batch) if getattr(backbone, "shares_prefixes", False) else None
    return backbone(batch) if shared is None else shared.whole(backbone(shared.batch))


def share_prefixes(batch: Batch) -> SharedBatch | None:
    """Return a batch with its common starts once; None where that saves too little, or prompts are more than tokens."""
    is_plain = batch.modality == "text" and batch.token_type_ids is None and batch.attention_lengths is None
    if not is_plain or len(batch) < 2:
        return None
    raw, bounds = batch.token_ids.astype(">i4").tobytes(), (4 * batch.cu_seqlens).tolist()
    texts = [raw[start:stop] for start, stop in pairwise(bounds)]
    order = np.array(sorted(range(len(batch)), key=texts.__getitem__))  # those with a common start stand together
    groups = _find_groups(_common_starts(batch, order), 0, len(batch), splits=MOST_SPLITS)
    if sum(group.saved for group in groups) < SMALLEST_SAVING * batch.segments.tokens:
        return None
    return _lay_out(batch, [(order[group.first : group.stop], group.length) for group in groups])


def _common_starts(batch: Batch, order: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return how many tokens each prompt and the next in order begin with, leaving each of them one. (prompts - 1,)"""
    segments = batch.segments.arrays
    starts, lengths = segments.starts[order], segments.lengths[order]
    most = np.minimum(lengths[:-1], lengths[1:]) - 1
    common = np.zeros(len(most), np.int64)
    compared = np.flatnonzero(most > 0)
    if len(compared):
        sizes = most[compared]
        left, right = _ranges(starts[:-1][compared], sizes), _ranges(starts[1:][compared], sizes)
        places = _ranges(np.zeros_like(sizes), sizes)
        first_different = np.where(batch.token_ids[left] == batch.token_ids[right], np.repeat(sizes, sizes), places)
        common[compared] = np.minimum.reduceat(first_different, sizes.cumsum() - sizes)
    return common


def _find_groups(common: NDArray[np.int64], first: int, stop: int, *, splits: int) -> list[_Group]:
    """Return the groups among some prompts, in order of their tokens, that save the most."""
    between = common[first : stop - 1]
    if not len(between) or between.max() < FEWEST_TOKENS:
        return []
    together = _Group(first, stop, int(between.min()))
    is_worth = together.length >= FEWEST_TOKENS
    cuts = np.flatnonzero(between == together.length) + 1
    could_save = int(between.sum()) - len(cuts) * together.length  # apart, at the very most
    if splits == 0 or (is_worth and could_save <= together.saved):
        return [together] if is_worth else []
    bounds = [first, *(first + cuts).tolist(), stop]
    apart = [group for part in pairwise(bounds) for group in _find_groups(common, *part, splits=splits - 1)]
    return [together] if is_worth and together.saved >= sum(group.saved for group in apart) else apart


def _lay_out(batch: Batch, groups: Sequence[tuple[NDArray[np.intp], int]]) -> SharedBatch:
    """Return a batch of the common starts and of what nothing is shared of, then of what is behind these starts.

    Args:
        batch: the whole of it.
        groups: prompts that begin alike, and with how many tokens.
    """
    segments = batch.segments.arrays
    shared, group_of = np.zeros(len(batch), np.int64), np.full(len(batch), -1)
    for number, (members, length) in enumerate(groups):
        shared[members], group_of[members] = length, number
    own = segments.lengths - shared
    alone, behind = np.flatnonzero(group_of < 0), np.flatnonzero(group_of >= 0)

    leaders = np.concatenate([np.array([members[0] for members, _ in groups], np.intp), alone])
    leading = np.concatenate([np.array([length for _, length in groups], np.int64), own[alone]])
    by_length = np.argsort(leading, kind="stable")
    place_of = np.empty_like(by_length)  # of each start, and of each prompt that stands alone
    place_of[by_length] = np.arange(len(by_length))
    behind = behind[np.lexsort((own[behind], place_of[group_of[behind]]))]

    prompts = np.concatenate([leaders[by_length], behind])
    lengths = np.concatenate([leading[by_length], own[behind]])
    skipped = np.concatenate([np.zeros_like(leading), shared[behind]])
    tokens = _ranges(segments.starts[prompts] + skipped, lengths)
    cu_seqlens = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    runs = Batch(
        token_ids=batch.token_ids[tokens],
        cu_seqlens=cu_seqlens,
        is_query=batch.is_query[prompts],
        params=[batch.params[prompt] for prompt in prompts.tolist()],
        prefixes=np.concatenate([np.full(len(leading), -1), place_of[group_of[behind]]]).astype(np.int32),
    )
    own_place = np.empty(len(batch), np.int64)
    own_place[alone], own_place[behind] = place_of[len(groups) :], len(leading) + np.arange(len(behind))
    start_place = np.where(group_of < 0, own_place, place_of[group_of])
    starts = np.stack([cu_seqlens[start_place], cu_seqlens[own_place]], axis=1)  # (prompts, 2)
    return SharedBatch(runs, _ranges(starts.reshape(-1), np.stack([shared, own], axis=1).reshape(-1)))


def _ranges(starts: NDArray[np.integer], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return so many numbers from each start on, end to end."""
    before = lengths.cumsum() - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
