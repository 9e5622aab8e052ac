"""What the hidden states become: a vector for each marker, those of the documents and then that of the query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from poolkit import Head, ModelInfo, Pooled
from poolkit.errors import ModelError
from poolkit_jina_reranker_v3.projector import Projector, load_projector
from poolkit_jina_reranker_v3.prompt import DOCUMENT_MARKER, QUERY_MARKER

if TYPE_CHECKING:
    from poolkit import Segments

__all__ = ["MarkerHead", "create_head"]


def create_head(info: ModelInfo, *, device: torch.device) -> Head:
    """Return the head of a model.

    Raises:
        ModelError: its weights hold no projector, or its tokenizer has no markers.
    """
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(info.path).get_vocab()
    missing = [marker for marker in (DOCUMENT_MARKER, QUERY_MARKER) if marker not in tokens]
    if missing:
        raise ModelError(
            f"The tokenizer in {info.path} has no token {' and no '.join(missing)}, so {info.name} is no complete "
            "jina-reranker-v3. Fetch the model again."
        )
    markers = torch.tensor([tokens[DOCUMENT_MARKER], tokens[QUERY_MARKER]], device=device)
    return MarkerHead(load_projector(info, device=device), markers)


class MarkerHead:
    """Gives a row for each marker of a prompt, in the order of the text: the query's is the last."""

    def __init__(self, project: Projector, markers: torch.Tensor) -> None:
        self._project = project
        self._markers = markers  # token ids

    def __call__(self, hidden: torch.Tensor, token_ids: torch.Tensor, segments: Segments, /) -> list[Pooled]:
        """Return the rows of each segment. (tokens, hidden) -> (documents + 1, dim) each"""
        is_marker = torch.isin(token_ids, self._markers)  # (tokens,)
        rows = self._project(hidden[is_marker].float())  # (markers, dim)
        counts = segments.owners[is_marker].bincount(minlength=len(segments.sizes)).tolist()
        return [Pooled(of_segment) for of_segment in torch.split(rows, counts)]
