"""Where the sequences lie in a flat batch: all tokens end to end, no padding, and no Python work per token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Run", "Segments"]


@dataclass(frozen=True, slots=True)
class Run:
    """Segments of one length that lie next to each other: a view, not a copy, makes a rectangle of them.

    Attributes:
        start: the place of their first token in the batch.
        count: how many segments they are.
        length: of each.
        first: which of the batch's segments is the first of them.
        is_attended: whether the tokens of each segment see all the others of it.
    """

    start: int
    count: int
    length: int
    first: int
    is_attended: bool = True

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
        attended: how many of each segment's first tokens are seen by its tokens; None where all are. (sequences,)
        prompt_length: leading tokens of each segment that are left out of pooling; None where none are. (sequences,)
    """

    runs: tuple[Run, ...]
    lengths: torch.Tensor
    ends: torch.Tensor
    owners: torch.Tensor
    places: torch.Tensor
    attended: torch.Tensor | None = None
    prompt_length: torch.Tensor | None = None
    _masks: dict[tuple[Run, int | None, bool], torch.Tensor] = field(default_factory=dict, repr=False)

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

    def mask(self, run: Run, *, width: int | None, is_causal: bool) -> torch.Tensor | None:
        """Return which tokens of a run's segments see each other; None where all do, or all before them if causal.

        Layers share the mask: it is built once a batch for each run.

        Args:
            run: one of `runs`.
            width: tokens so far apart or more do not see each other; None where they do.
            is_causal: whether a token sees only itself and those before it.

        Returns (length, length), or (count, 1, length, length) where the run is not attended as a whole; bool.
        """
        is_narrow = width is not None and run.length > width
        if not is_narrow and run.is_attended:
            return None
        key = (run, width if is_narrow else None, is_causal)
        if key not in self._masks:
            self._masks[key] = self._make_mask(*key)
        return self._masks[key]

    def _make_mask(self, run: Run, width: int | None, is_causal: bool) -> torch.Tensor:
        places = self.places[run.start : run.start + run.length]  # 0, 1, 2, …
        distance = places[:, None] - places[None, :]  # (length, length), query minus key
        sees = distance.abs() < (run.length if width is None else width)
        if is_causal:
            sees = sees & (distance >= 0)
        if run.is_attended or self.attended is None:
            return sees
        is_seen = places < self.attended[run.first : run.first + run.count, None]  # (count, length)
        return sees & is_seen[:, None, None]  # (count, 1, length, length)


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts end to end.

    Attributes:
        token_ids: (tokens,)
        segments: where the sequences lie.
        queries: 1 for each query, 0 for the others. (sequences,)
        token_type_ids: where some text is the second of a pair. (tokens,)
    """

    token_ids: torch.Tensor
    segments: Segments
    queries: torch.Tensor
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
