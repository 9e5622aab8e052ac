"""The logits of a classifier: its own head on the hidden states that the head reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from poolkit.contract import PooledRows, PoolingMode
from poolkit.engine.poolers.pooling import POOL, pool

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.contract import Batch, ModelInfo, States

__all__ = ["ClassifierPooler"]

READS = {
    PoolingMode.CLS: "the first token",
    PoolingMode.LAST: "the last token",
    PoolingMode.MEAN: "the mean of the tokens",
    None: "every token",
}


class ClassifierPooler:
    """Runs a classifier's head. (prompts, labels), or (tokens, labels) where `per_token`; float32

    Args:
        head: the model without its base, a function of hidden states.
        info: what the model's files say.
        pad_token_id: the model's own; None where it has none.
        per_token: True if there are logits of each token.
    """

    def __init__(self, head: PreTrainedModel, info: ModelInfo, *, pad_token_id: int | None, per_token: bool) -> None:
        self._head = head
        self._pad_token_id = pad_token_id
        self._mode = None if per_token else _mode(head, info)
        self.reads = READS[self._mode]

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:
        """Return the logits of each prompt, or of each of its tokens."""
        hidden, token_ids = self._read(states, batch)
        logits = self._head(inputs_embeds=hidden, input_ids=token_ids).logits.flatten(0, -2)  # (rows, labels)
        return PooledRows(logits, batch.segments.sizes if self._mode is None else None)

    def _read(self, states: States[torch.Tensor], batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the hidden states that the head reads, as (rows, tokens, hidden), and the token ids they stand for."""
        hidden = states.tokens
        assert hidden is not None
        arrays = batch.on(hidden.device)
        token_ids, segments = arrays.token_ids, arrays.segments
        if self._mode is None:
            return hidden[None].float(), token_ids[None]  # (1, tokens, hidden)
        if self._mode is not PoolingMode.LAST or self._pad_token_id is None:
            return pool(hidden, batch.segments, batch, [POOL[self._mode]])[:, None], token_ids[segments.ends - 1][
                :, None
            ]
        # transformers takes the last token that is no padding, even where a prompt itself ends in padding tokens.
        is_text = token_ids != self._pad_token_id
        positions = torch.where(is_text, segments.positions, 0)  # (tokens,)
        furthest = torch.zeros_like(segments.lengths).scatter_reduce(0, segments.segment_ids, positions, reduce="amax")
        chosen = segments.starts + furthest  # (prompts,)
        return hidden[chosen].float()[:, None], token_ids[chosen][:, None]


def _mode(model: PreTrainedModel, info: ModelInfo) -> PoolingMode:
    """Return what a sequence classifier's head reads: a decoder's the last token, an encoder's mostly the first."""
    from transformers.modeling_layers import GenericForSequenceClassification

    if isinstance(model, GenericForSequenceClassification) or info.pooling.modes == (PoolingMode.LAST,):
        return PoolingMode.LAST
    if getattr(model.config, "classifier_pooling", None) == "mean":
        return PoolingMode.MEAN
    return PoolingMode.CLS
