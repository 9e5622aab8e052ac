"""A batch on torch's device, as packed attention reads it: segments of one length together, without padding.

On a CPU the rows of a batch are rounded up to one of a few sizes by filler rows after its last token: oneDNN makes and
keeps an object for each number of rows that it multiplies. Filler rows are token 0 at the first position. They are in
no group, so that no token sees them, and are cut off before hidden states leave the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from poolkit.contract import Batch, BatchArrays
    from poolkit.engine.torch.varlen import VarlenAttention

__all__ = ["LengthGroup", "PackedBatch", "round_up"]

SIZES_PER_DOUBLING = 16
"""Sizes between a number of rows and twice as many: at most one row in so many is filler."""

SMALLEST = 2
"""For one row oneDNN wants weights in another layout than for more."""

LARGEST_EXACT = 32
"""Batches of so few tokens, such as one short prompt, are not rounded."""


def round_up(tokens: int) -> int:
    """Return the number of rows that a batch of so many tokens is given on a CPU."""
    if tokens <= LARGEST_EXACT:
        return max(tokens, SMALLEST)
    step = (1 << (tokens - 1).bit_length() - 1) // SIZES_PER_DOUBLING  # a power of two
    return -(-tokens // step) * step


@dataclass(frozen=True, slots=True)
class LengthGroup:
    """Segments of one length that lie next to each other: a view, not a copy, makes a rectangle of them.

    Attributes:
        start: the first token of the first of them.
        count: number of segments.
        length: tokens of each.
        first: index of the first of them among the batch's segments.
        is_attended: True if the tokens of each segment see all the others of it.
        prefix: first and last token, plus one, of the segment that all of them continue; None where they stand alone.
    """

    start: int
    count: int
    length: int
    first: int
    is_attended: bool = True
    prefix: tuple[int, int] | None = None

    @property
    def stop(self) -> int:
        """One past the last token."""
        return self.start + self.count * self.length

    @property
    def prefix_length(self) -> int:
        """Tokens before each segment's own."""
        return 0 if self.prefix is None else self.prefix[1] - self.prefix[0]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch on its device, with what packed attention needs of it.

    Attributes:
        arrays: the batch's tensors, without filler rows.
        groups: its segments by length.
        rows: tokens and filler rows.
        token_ids: of all rows. (rows,)
        token_type_ids: of all rows; None where all tokens are of type 0. (rows,)
        varlen: attends in segments of any lengths at once; None where that is done length by length.
        cu_seqlens: where each segment starts, and where the last one ends, as `varlen` reads it. (segments + 1,), int32
    """

    arrays: BatchArrays[torch.Tensor]
    groups: tuple[LengthGroup, ...]
    rows: int
    token_ids: torch.Tensor
    token_type_ids: torch.Tensor | None
    varlen: VarlenAttention | None = None
    cu_seqlens: torch.Tensor | None = None
    _masks: dict[tuple[LengthGroup, int | None, bool], torch.Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, batch: Batch, device: torch.device, *, varlen: VarlenAttention | None = None) -> PackedBatch:
        """Return a batch, copied to the device."""
        arrays, tokens = batch.on(device), batch.segments.tokens
        groups = _groups(batch)
        if varlen is not None and batch.prefixes is not None:
            raise NotImplementedError("segments of any lengths are attended to at once, without prefixes")
        if not all(group.is_attended for group in groups):
            varlen = None  # it knows no tokens that the others of their segment do not see
        rows = round_up(tokens) if device.type == "cpu" and varlen is None else tokens
        types = arrays.token_type_ids
        return cls(
            arrays,
            groups,
            rows,
            token_ids=_extend(arrays.token_ids, rows),
            token_type_ids=None if types is None else _extend(types, rows),
            varlen=varlen,
            cu_seqlens=None if varlen is None else pad(arrays.segments.ends, (1, 0)).int(),
        )

    @property
    def tokens(self) -> int:
        """Tokens, which are all rows but the filler rows after them."""
        return len(self.arrays.token_ids)

    def positions(self, offset: int) -> torch.Tensor:
        """Return each row's position id: its token's place in its segment, from `offset` on. (rows,)

        Models with an offset have pad_id + 1 there, and leave padding tokens out of their count, also where a text
        itself holds one: it gets the position pad_id (transformers' `create_position_ids_from_input_ids`).
        """
        return _extend(self._positions(offset), self.rows, offset)

    def _positions(self, offset: int) -> torch.Tensor:
        segments = self.arrays.segments
        has_prefixes = any(group.prefix is not None for group in self.groups)
        if offset == 0 and not has_prefixes:
            return segments.positions
        if has_prefixes:
            if offset != 0:
                raise NotImplementedError("positions that leave padding tokens out do not go on behind a prefix")
            counts = [group.count * group.length for group in self.groups]
            before = torch.tensor([group.prefix_length for group in self.groups], device=segments.positions.device)
            return segments.positions + before.repeat_interleave(torch.tensor(counts, device=before.device))
        is_padding = (self.arrays.token_ids == offset - 1).long()
        before = is_padding.cumsum(0) - is_padding  # padding tokens before each token, in the whole batch
        before_own = before - before[segments.starts][segments.segment_ids]  # in the token's own segment
        return (segments.positions - before_own + offset).where(is_padding == 0, offset - 1)

    def mask(self, group: LengthGroup, *, width: int | None, is_causal: bool) -> torch.Tensor | None:
        """Return which tokens of a group's segments see each other; None where all do, or all before them if causal.

        Layers share the mask: it is built once a batch for each group.

        Args:
            group: one of `groups`.
            width: tokens so far apart or more do not see each other; None where they do.
            is_causal: whether a token sees only itself and those before it.

        Returns (length, keys), where the keys are those of the prefix and the segment's own; or (count, 1, length,
        length) where the group is not attended as a whole; bool.
        """
        is_narrow = width is not None and group.prefix_length + group.length > width
        if not is_narrow and group.is_attended and group.prefix is None:
            return None
        key = (group, width if is_narrow else None, is_causal)
        if key not in self._masks:
            self._masks[key] = self._make_mask(*key)
        return self._masks[key]

    def _make_mask(self, group: LengthGroup, width: int | None, is_causal: bool) -> torch.Tensor:
        positions = self.arrays.segments.positions[group.start : group.start + group.length]  # 0, 1, 2, …
        keys = torch.arange(-group.prefix_length, group.length, device=positions.device)
        distance = positions[:, None] - keys[None, :]  # (length, keys), query minus key
        sees = distance.abs() < (len(keys) if width is None else width)
        if is_causal:
            sees = sees & (distance >= 0)
        lengths = self.arrays.attention_lengths
        if group.is_attended or lengths is None:
            return sees
        is_seen = positions < lengths[group.first : group.first + group.count, None]  # (count, length)
        return sees & is_seen[:, None, None]  # (count, 1, length, length)


def _extend(tokens: torch.Tensor, rows: int, value: int = 0) -> torch.Tensor:
    """Return a number for each row. (tokens,) -> (rows,)"""
    return tokens if len(tokens) == rows else pad(tokens, (0, rows - len(tokens)), value=value)


def _groups(batch: Batch) -> tuple[LengthGroup, ...]:
    lengths, prefixes = batch.segments.arrays.lengths, batch.prefixes
    if prefixes is None:
        prefixes = np.full(len(lengths), -1, np.int32)
    changes = np.flatnonzero((np.diff(lengths) != 0) | (np.diff(prefixes) != 0)) + 1
    bounds = [0, *changes.tolist(), len(lengths)]
    cu_seqlens, attention_lengths = batch.cu_seqlens.tolist(), batch.attention_lengths
    groups = []
    for first, stop in pairwise(bounds):
        length, prefix = int(lengths[first]), int(prefixes[first])
        is_attended = attention_lengths is None or bool((attention_lengths[first:stop] >= length).all())
        continued = None if prefix < 0 else (cu_seqlens[prefix], cu_seqlens[prefix + 1])
        groups.append(LengthGroup(cu_seqlens[first], stop - first, length, first, is_attended, continued))
    return tuple(groups)
