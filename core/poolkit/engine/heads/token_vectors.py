"""The vectors of tokens: what the model's layers make of hidden states, and which tokens' vectors are answered.

A multi-vector model leaves out the tokens of its skiplist, punctuation mostly, in the texts that the list is for. Their
rows go before anything leaves the device.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from poolkit.engine.answers import Raw
from poolkit.engine.heads.layers import load_layers

if TYPE_CHECKING:
    from poolkit.config import ModelConfig
    from poolkit.engine.passes.segments import Batch
    from poolkit.models import ModelInfo

__all__ = ["TokenVectors"]


class TokenVectors:
    """Turns the hidden states of a batch into its tokens' vectors.

    Raises ModelError where the weights of the model's layers are missing or of another shape than they should be.
    """

    def __init__(self, info: ModelInfo, config: ModelConfig, *, device: torch.device) -> None:
        self._layers = load_layers(info.pooling.token_layers, device=device)
        self._spec = spec = info.multi_vector
        skipped = _find_ids(spec.skiplist, info, config) if spec is not None and spec.skiplist else []
        self._skipped = torch.tensor(skipped, dtype=torch.long, device=device)
        self._kept = torch.tensor(spec.kept_token_ids if spec is not None else (), dtype=torch.long, device=device)

    def of(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the vector of every token. (tokens, hidden) -> (tokens, dim), float32"""
        return self._layers(hidden, partial(_is_query, batch))

    def answered(self, hidden: torch.Tensor, batch: Batch) -> Raw:
        """Return the vectors that each sequence answers."""
        rows = self.of(hidden, batch)
        if not len(self._skipped) and not len(self._kept):
            return Raw(rows, batch.segments.sizes)
        is_answered = self._is_answered(batch)
        sizes = batch.queries.new_zeros(len(batch.queries)).index_add_(0, batch.segments.owners, is_answered.long())
        return Raw(rows[is_answered], sizes.tolist())

    def _is_answered(self, batch: Batch) -> torch.Tensor:
        """Return which tokens answer their vector. (tokens,), bool"""
        assert self._spec is not None
        is_query = _is_query(batch)
        is_answered = torch.ones_like(is_query)
        if len(self._skipped):
            in_query, in_document = ("query" in self._spec.skips_in), ("document" in self._spec.skips_in)
            is_listed = torch.isin(batch.token_ids, self._skipped)
            is_answered &= ~(is_listed & torch.where(is_query, in_query, in_document))
        if len(self._kept):
            is_answered &= is_query | torch.isin(batch.token_ids, self._kept)
        return is_answered


def _is_query(batch: Batch) -> torch.Tensor:
    """Return which tokens are a query's. (tokens,), bool"""
    return batch.queries.bool()[batch.segments.owners]


def _find_ids(words: tuple[str, ...], info: ModelInfo, config: ModelConfig) -> list[int]:
    """Return the ids of those words that are tokens: the others would stand for every unknown token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(info.path, trust_remote_code=config.trust_remote_code)
    found = []
    for word in words:
        token_id = tokenizer.convert_tokens_to_ids(word)
        if isinstance(token_id, int) and (token_id != tokenizer.unk_token_id or word == tokenizer.unk_token):
            found.append(token_id)
    return found
