"""From hidden states to a vector for each marker: those of the documents, and then that of the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from poolkit import HeadContext, PooledRows
from poolkit.errors import ModelError
from poolkit_jina_reranker_v3.projector import Projector, load_projector
from poolkit_jina_reranker_v3.prompt import DOCUMENT_MARKER, QUERY_MARKER

if TYPE_CHECKING:
    from poolkit import Batch, States

__all__ = ["MarkerHead", "create_head"]


def create_head(context: HeadContext) -> MarkerHead:
    """Return the head of a model.

    Raises:
        ModelError: its weights hold no projector, or its tokenizer has no markers.
    """
    model = context.model
    found = {marker: context.encoder.token_id(marker) for marker in (DOCUMENT_MARKER, QUERY_MARKER)}
    missing = [marker for marker, token_id in found.items() if token_id is None]
    if missing:
        raise ModelError(
            f"The tokenizer in {model.path} has no token {' and no '.join(missing)}, so {model.name} is no complete "
            "jina-reranker-v3. Fetch the model again."
        )
    markers = [token_id for token_id in found.values() if token_id is not None]
    return MarkerHead(load_projector(model, device=context.device), markers)


class MarkerHead:
    """Gives a row for each marker of a prompt, in the order of the text: the query's is the last."""

    def __init__(self, project: Projector, markers: Sequence[int]) -> None:
        self._project = project
        self._markers = markers  # token ids

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:
        """Return the rows of each prompt. (tokens, hidden) -> (documents + 1, dim) each"""
        assert states.tokens is not None
        is_marker = np.isin(batch.token_ids, self._markers)  # (tokens,)
        places = torch.from_numpy(np.flatnonzero(is_marker)).to(states.tokens.device)
        counts = np.bincount(batch.segments.arrays.segment_ids[is_marker], minlength=len(batch))
        return PooledRows(self._project(states.tokens[places].float()), counts.tolist())
