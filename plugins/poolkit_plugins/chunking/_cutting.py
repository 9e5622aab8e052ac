"""Cuts the token ids of one prompt, or of the second text of a pair, into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from poolkit.errors import RequestError
from poolkit_plugins._prompts import as_prompt

if TYPE_CHECKING:
    from poolkit import BindContext, Prompt
    from poolkit.contract import PairTemplate
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
        return [[*prefix, *piece, *suffix] for piece in self._pieces(body, room)]

    def cut_pair(self, first: Sequence[int], second: Sequence[int], template: PairTemplate) -> list[Prompt]:
        """Return the pairs of the first text and each chunk of the second, in order.

        Raises:
            RequestError: the first text leaves no room for the second.
        """
        room = self.longest - template.size - len(first)
        if room <= self.overlap:
            raise RequestError(
                f"The first text of a pair has {len(first)} tokens, which leaves {max(room, 0)} of {self.longest} to "
                "each chunk of the second. Shorten it, or set truncate_prompt_tokens=-1 to have both cut.",
                param="input",
            )
        return [as_prompt(*template.join(first, piece)) for piece in self._pieces(second, room)]

    def _pieces(self, body: Sequence[int], room: int) -> list[Sequence[int]]:
        starts = range(0, max(1, len(body) - self.overlap), room - self.overlap)
        return [body[start : start + room] for start in starts]
