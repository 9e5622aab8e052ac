"""From the hidden states of a masked language model to the weights of the tokens that a text is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from poolkit import HeadContext, PooledRows, load_masked_lm_head
from poolkit_splade.files import Activation, Pooling, SpladeFiles, splade_files

if TYPE_CHECKING:
    from poolkit import Batch, States

__all__ = ["SpladeHead", "create_head"]

BLOCK_TOKENS = 256
"""Tokens whose logits are held at a time: for BERT's vocabulary in float32 that is 31 MB."""


def create_head(context: HeadContext) -> SpladeHead:
    """Return the head of a model: its own masked language model head, then SPLADE's pooling."""
    return SpladeHead(load_masked_lm_head(context), splade_files(context.model))


class SpladeHead:
    """Sentence-transformers' SpladePooling: over all tokens of a text, the special ones as well."""

    def __init__(self, to_logits: Callable[[torch.Tensor], torch.Tensor], files: SpladeFiles) -> None:
        self._to_logits = to_logits
        self._pooling = files.pooling
        self._activation = files.activation

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:  # noqa: ARG002
        """Return the weights above zero of each text, with the token that each is of."""
        assert states.tokens is not None
        assert states.segments is not None
        tokens, weights, lengths = [], [], []
        start = 0
        for sizes in _blocks(states.segments.sizes):
            stop = start + sum(sizes)
            vectors = self._vectors(states.tokens[start:stop], sizes)  # (texts, vocabulary)
            texts, active = vectors.nonzero(as_tuple=True)
            tokens.append(active)
            weights.append(vectors[texts, active])
            lengths += texts.bincount(minlength=len(sizes)).tolist()
            start = stop
        return PooledRows(torch.cat(weights), lengths, torch.cat(tokens))

    def _vectors(self, hidden: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """Return the weights of some texts. (tokens, hidden) -> (texts, vocabulary)"""
        if len(sizes) > 1 or sizes[0] <= BLOCK_TOKENS:
            logits = self._to_logits(hidden).float()  # (tokens, vocabulary)
            return torch.stack([self._pool(rows) for rows in torch.split(logits, list(sizes))])
        parts = [self._pool(self._to_logits(part).float()) for part in torch.split(hidden, BLOCK_TOKENS)]
        return self._reduce(torch.stack(parts))[None]

    def _pool(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the weights that logits stand for. (tokens, vocabulary) -> (vocabulary,)"""
        if self._pooling is Pooling.MAX:  # activating does not change which is the highest, and one row costs less
            return self._activate(self._reduce(logits))
        return self._reduce(self._activate(logits))

    def _reduce(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.amax(dim=0) if self._pooling is Pooling.MAX else rows.sum(dim=0)

    def _activate(self, logits: torch.Tensor) -> torch.Tensor:
        weights = logits.relu().log1p()
        return weights.log1p() if self._activation is Activation.LOG1P_RELU else weights


def _blocks(sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the sizes of texts that fit into a block together; a text that is larger comes alone."""
    block: list[int] = []
    for size in sizes:
        if block and sum(block) + size > BLOCK_TOKENS:
            yield block
            block = []
        block.append(size)
    if block:
        yield block
