"""Causal LMs with the rows of their own head that score a text, or each of its tokens.

A yes/no reranker's score is the logit of "yes" after the last token, less that of "no"; a process reward model's are
the logits of some tokens at each step. Of the head, a row for each token of the vocabulary, only these are kept;
whatever else the model does with its logits stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from poolkit.contract import Decision, LogitScore, ModelInfo, PooledRows
from poolkit.engine.lm_heads import head_rows
from poolkit.engine.poolers.pooling import pool, pool_last
from poolkit.engine.torch.families.family import TorchFamily
from poolkit.engine.torch.loading import load_weights
from poolkit.engine.torch.split import Head, split, split_classifier
from poolkit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.contract import Backbone, Batch, Pooler, PromptEncoder, States
    from poolkit.engine.torch.loading import Placement

__all__ = ["CAUSAL_LM"]

CAUSAL = "AutoModelForCausalLM"


class LogitScorePooler:
    """Gives the score of each prompt: (prompts, 1), float32. Its head has a row for each answer token alone."""

    def __init__(self, head: PreTrainedModel) -> None:
        self._head = head

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:
        """Return a row for each prompt."""
        assert states.tokens is not None
        last = pool(states.tokens, batch.segments, batch, [pool_last])  # (prompts, hidden)
        return PooledRows(_less(self._head(inputs_embeds=last[:, None]).logits[:, 0]))  # (prompts, 1)


def _load_head(
    info: ModelInfo, placement: Placement, *, encoder: PromptEncoder, per_token: bool
) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
    return _load_token_scores(info, placement) if per_token else _load_logit_score(info, placement, encoder)


def _load_token_scores(info: ModelInfo, placement: Placement) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
    model = load_weights(info, placement, kind=CAUSAL)
    rows = head_rows(model.get_output_embeddings(), list(info.columns))  # type: ignore[no-untyped-call]
    # Where the head is run alone it is in float32 again, and no less exact than the model's own.
    model.set_output_embeddings(rows.to(placement.dtype))  # type: ignore[no-untyped-call]
    return split_classifier(model, info, placement, per_token=True)


def _load_logit_score(
    info: ModelInfo, placement: Placement, encoder: PromptEncoder
) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
    assert info.reranker.logit_score is not None
    ids = _find_ids(info.reranker.logit_score, info, encoder)
    model = load_weights(info, placement, kind=CAUSAL)
    vocabulary: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers' own

    def prepare() -> Callable[[], None]:
        model.set_output_embeddings(head_rows(vocabulary, ids))  # type: ignore[no-untyped-call]
        torch.nn.Module.float(model)

        def undo() -> None:
            model.set_output_embeddings(vocabulary)  # type: ignore[no-untyped-call]
            torch.nn.Module.to(model, placement.dtype)

        return undo

    def whole(batch: Batch) -> torch.Tensor:
        """Run the model as transformers runs it, a prompt at a time: all logits of many prompts would not fit."""
        token_ids = batch.on(model.device).token_ids
        logits = [
            model(input_ids=of_prompt[None], logits_to_keep=1).logits[0, -1, ids]
            for of_prompt in batch.segments.split(token_ids)
        ]
        return _less(torch.stack(logits).float())

    decision = Decision("head", "the answer tokens' rows, on the last token", "the answer tokens")
    return split(
        model,
        info,
        placement,
        head=Head(LogitScorePooler(model), decision, prepare),
        whole=whole,
        whole_path="one prompt at a time",
    )


def _find_ids(tokens: LogitScore, info: ModelInfo, encoder: PromptEncoder) -> list[int]:
    """Return the ids of the answer tokens: of "yes", then of "no" where there is one.

    Raises ModelError where the tokenizer or the model does not have one of them.
    """
    ids = []
    for token in (tokens.true_token, tokens.false_token):
        token_id = encoder.token_id(token) if isinstance(token, str) else token
        if token_id is not None:
            ids.append(token_id)
        elif token is not None:
            raise ModelError(
                f"{info.name} answers with the token {token!r}, but its tokenizer has none of that name. Check "
                "classifier_from_token, or fetch the model again."
            )
    outside = [found for found in ids if not 0 <= found < info.vocab_size]
    if outside:
        raise ModelError(
            f"{info.name} answers with token {outside[0]}; its ids go from 0 to {info.vocab_size - 1}. Fetch the model "
            "again."
        )
    return ids


def _less(logits: torch.Tensor) -> torch.Tensor:
    """Return the score of each prompt: the first logit, less the second where there is one. (prompts, 1)"""
    return logits[:, :1] - logits[:, 1:] if logits.shape[1] > 1 else logits


CAUSAL_LM = TorchFamily(load_head=_load_head)
"""Yes/no rerankers (Qwen3-Reranker, mxbai-rerank-v2, bge-reranker-v2-gemma), and language models that score steps."""
