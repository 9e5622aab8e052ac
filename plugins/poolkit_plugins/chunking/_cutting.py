"""Cuts the token ids of one prompt into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from poolkit import BindContext
    from poolkit_plugins.chunking import Settings

__all__ = ["Cutter"]


@dataclass(frozen=True, slots=True)
class Cutter:
    """How prompts are cut.

    Attributes:
        longest: tokens in a chunk, special tokens included.
        overlap: tokens that a chunk repeats of the one before.
        prefix: special tokens before a text.
        suffix: special tokens behind it.
    """

    longest: int
    overlap: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @classmethod
    def of(cls, context: BindContext, settings: Settings) -> Self:
        """Return the cutter that the settings ask for.

        Raises:
            ValueError: the model does not take such chunks, or they would make no headway.
        """
        model = context.model
        prefix, suffix = context.encoder.special_ids()
        longest = settings.max_chunk_tokens or model.max_model_len
        if longest > model.max_model_len:
            raise ValueError(f"max_chunk_tokens is {longest}; {model.name} takes at most {model.max_model_len}")
        special, overlap = len(prefix) + len(suffix), settings.overlap_tokens
        if special + overlap >= longest:
            raise ValueError(
                f"{special} special tokens and overlap_tokens = {overlap} leave nothing of a chunk of {longest} tokens"
            )
        return cls(longest, overlap, prefix, suffix)

    def cut(self, ids: Sequence[int]) -> list[Sequence[int]]:
        """Return the chunks of a prompt, in order; one that fits is its only chunk.

        A prompt that stands between special tokens is cut inside of them, and they are put around each chunk.
        """
        if len(ids) <= self.longest:
            return [ids]
        end = len(ids) - len(self.suffix)
        has_specials = (*ids[: len(self.prefix)], *ids[end:]) == (*self.prefix, *self.suffix)
        prefix, suffix = (self.prefix, self.suffix) if has_specials else ((), ())
        body = ids[len(prefix) : len(ids) - len(suffix)]
        room = self.longest - len(prefix) - len(suffix)
        starts = range(0, len(body) - self.overlap, room - self.overlap)
        return [[*prefix, *body[start : start + room], *suffix] for start in starts]
