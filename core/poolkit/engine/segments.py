"""Where the sequences lie in a flat batch: all tokens end to end, no padding, and no Python work per token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Run", "Segments"]


@dataclass(frozen=True, slots=True)
class Run:
    """Segments of one length that lie next to each other: a view, not a copy, makes a rectangle of them."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """One past the last token."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each sequence lies in a flat batch, shortest first.

    Attributes:
        runs: the segments, those of one length together.
        lengths: tokens of each segment. (sequences,)
        ends: one past each segment's last token. (sequences,)
        owners: the segment of each token. (tokens,)
        places: each token's place in its segment, from 0. (tokens,)
    """

    runs: tuple[Run, ...]
    lengths: torch.Tensor
    ends: torch.Tensor
    owners: torch.Tensor
    places: torch.Tensor
    _windows: dict[tuple[int, int, bool], torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def starts(self) -> torch.Tensor:
        """Each segment's first token. (sequences,)"""
        return self.ends - self.lengths

    @property
    def sizes(self) -> list[int]:
        """The tokens of each segment, in Python: unlike `lengths` this asks nothing of the device."""
        return [run.length for run in self.runs for _ in range(run.count)]

    def split(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each segment's part of something per token, as views. (tokens, …) -> (segment's tokens, …) each"""
        return rows.split(self.sizes)  # type: ignore[no-untyped-call, no-any-return]  # torch leaves it untyped

    def window(self, length: int, width: int, *, is_causal: bool) -> torch.Tensor:
        """Return which tokens of a segment see each other: those less than `width` apart. (length, length), bool

        Layers share the mask: it is built once a batch for each length.
        """
        key = (length, width, is_causal)
        if key not in self._windows:
            longest = self.runs[-1]
            places = self.places[longest.start : longest.start + length]  # 0, 1, 2, …
            distance = places[:, None] - places[None, :]  # (length, length), query minus key
            sees = distance.abs() < width
            self._windows[key] = sees & (distance >= 0) if is_causal else sees
        return self._windows[key]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids end to end (tokens,), and their types where some text is the second of a pair (tokens,)."""

    token_ids: torch.Tensor
    segments: Segments
    token_type_ids: torch.Tensor | None = None

    def positions(self, offset: int) -> torch.Tensor:
        """Return each token's position id: its place in its segment, from `offset` on. (tokens,)

        Models with an offset have pad_id + 1 there, and leave padding tokens out of their count, also where a text
        itself holds one: it gets the position pad_id (transformers' `create_position_ids_from_input_ids`).
        """
        places = self.segments.places
        if offset == 0:
            return places
        is_padding = (self.token_ids == offset - 1).long()
        before = is_padding.cumsum(0) - is_padding  # padding tokens before each token, in the whole batch
        before_own = before - before[self.segments.starts][self.segments.owners]  # in the token's own segment
        return (places - before_own + offset).where(is_padding == 0, offset - 1)
