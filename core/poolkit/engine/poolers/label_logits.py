"""The logits of some tokens after a prompt: what a guard, or a classifier by label words, reads of a causal LM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from poolkit.contract import PooledRows
from poolkit.engine.lm_heads import load_causal_lm_rows
from poolkit.engine.poolers.pooling import pool, pool_last
from poolkit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from poolkit.contract import Batch, HeadContext, States

__all__ = ["LabelLogitsPooler", "create_label_head"]


class LabelLogitsPooler:
    """Gives each prompt's logits of the label tokens. (prompts, labels), float32"""

    def __init__(self, to_logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._to_logits = to_logits

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:
        """Return a row for each prompt."""
        assert states.tokens is not None
        return PooledRows(self._to_logits(pool(states.tokens, batch.segments, batch, [pool_last])))


def create_label_head(labels: Sequence[str], context: HeadContext, *, task: str) -> LabelLogitsPooler:
    """Return what reads the logits of the tokens with these names.

    Raises ModelError where the tokenizer has no such token, or the checkpoint no output layer.
    """
    ids = []
    for label in labels:
        token_id = context.encoder.token_id(label)
        if token_id is None:
            raise ModelError(
                f"Task {task!r} reads the logits of the token {label!r}, but the tokenizer of {context.model.name} has "
                "none of that name."
            )
        ids.append(token_id)
    return LabelLogitsPooler(load_causal_lm_rows(context, ids))
