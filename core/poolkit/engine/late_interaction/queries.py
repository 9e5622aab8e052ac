"""Late interaction next to the model: queries wait here for their documents, of which only the scores leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from poolkit.contract import LateInteractionParams
from poolkit.engine.late_interaction.maxsim import maxsim

__all__ = ["QueryStore"]


@dataclass(slots=True)
class _Kept:
    vectors: torch.Tensor
    uses_left: int


class QueryStore:
    """The token vectors of queries on the engine's device, by key, each until its last use. For one thread."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def __len__(self) -> int:
        """Return how many queries are kept."""
        return len(self._kept)

    def answer(
        self, wishes: Sequence[LateInteractionParams | None], vectors: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return what leaves the engine for each prompt of a batch: the score of a document whose query is kept, (1,).

        All other prompts' vectors are returned as they are. Queries are kept before documents are scored, so that both
        may stand in one batch.

        Args:
            wishes: what each prompt asks.
            vectors: of each prompt, activated. (tokens, dim) each
        """
        answers = list(vectors)
        places_of_key: dict[str, list[int]] = {}
        for place, wish in enumerate(wishes):
            if wish is None:
                continue
            if wish.mode == "cache_query":
                self._kept[wish.query_key] = _Kept(vectors[place].float().clone(), wish.query_uses)
            else:
                places_of_key.setdefault(wish.query_key, []).append(place)
        for key, places in places_of_key.items():
            if (kept := self._kept.get(key)) is None:
                continue
            scores = maxsim(kept.vectors, [vectors[place] for place in places])  # (documents,)
            for place, score in zip(places, scores[:, None].unbind(), strict=True):
                answers[place] = score
            kept.uses_left -= len(places)
            if kept.uses_left <= 0:
                del self._kept[key]
        return answers

    def release(self, keys: Iterable[str]) -> None:
        """Forget queries that will not be used any more; some of them may be gone already."""
        for key in keys:
            self._kept.pop(key, None)
