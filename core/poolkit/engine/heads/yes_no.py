"""Runs a causal LM that is a reranker: its base as fast as it goes, then the rows of its head for the answer tokens.

The score is the logit of "yes" after the last token, less that of "no". Of the model's head, a row for each token of
the vocabulary, only these two are kept, in float32; whatever else the model does with its logits stays.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from poolkit.engine.heads.classifier import head_problem
from poolkit.engine.heads.pass_through import attach_base, detach_base
from poolkit.engine.heads.pooling import pool
from poolkit.engine.passes.run import Pass
from poolkit.engine.passes.self_check import TOLERANCE, check_batch, choose_pass, set_attention
from poolkit.errors import ModelError
from poolkit.models import Decision, LogitScore, ModelInfo, PoolingMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.config import ModelConfig
    from poolkit.engine.passes.segments import Batch

__all__ = ["choose_score", "find_answer_ids", "head_rows"]


def find_answer_ids(tokens: LogitScore, info: ModelInfo, config: ModelConfig) -> list[int]:
    """Return the ids of the answer tokens: of "yes", then of "no" where there is one.

    Raises ModelError where the tokenizer or the model does not have one of them.
    """
    from transformers import AutoTokenizer

    named = [token for token in (tokens.true_token, tokens.false_token) if token is not None]
    ids = [token for token in named if isinstance(token, int)]
    names = [token for token in named if isinstance(token, str)]
    if names:
        tokenizer = AutoTokenizer.from_pretrained(info.path, trust_remote_code=config.trust_remote_code)
        vocabulary = tokenizer.get_vocab()
        missing = [name for name in names if name not in vocabulary]
        if missing:
            raise ModelError(
                f"{info.name} answers with the token {missing[0]!r}, but its tokenizer has none of that name. Check "
                "classifier_from_token, or fetch the model again."
            )
        ids = [vocabulary[name] for name in names]
    outside = [found for found in ids if not 0 <= found < info.vocab_size]
    if outside:
        raise ModelError(
            f"{info.name} answers with token {outside[0]}; its ids go from 0 to {info.vocab_size - 1}. Fetch the model "
            "again."
        )
    return ids


@torch.inference_mode()
def choose_score(
    model: PreTrainedModel, info: ModelInfo, config: ModelConfig, *, answer_ids: list[int]
) -> tuple[Pass, tuple[Decision, ...]]:
    """Return how to get a reranker's scores before activation, (sequences, 1) in float32, and why.

    A model whose head does not give on its rows what the whole model gives is run whole.

    Raises ModelError where packed was asked for and the model cannot run so.
    """
    batch = check_batch(model, info)
    whole = partial(_whole, model, answer_ids)
    expected = whole(batch)
    dtype, attention = model.dtype, model.config._attn_implementation
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers' own
    base = detach_base(model)
    run_base, path = choose_pass(base, info, config)
    model.set_output_embeddings(head_rows(head, answer_ids))  # type: ignore[no-untyped-call]
    torch.nn.Module.float(model)

    def on_rows(batch: Batch) -> torch.Tensor:
        last = pool(run_base(batch), batch.segments, [PoolingMode.LAST])  # (sequences, hidden)
        return _less(model(inputs_embeds=last[:, None]).logits[:, 0])  # (sequences, 1)

    problem = head_problem(on_rows, batch, expected, allowed=TOLERANCE[dtype])
    if problem is None:
        return on_rows, (path, Decision("head", "the answer tokens' rows, on the last token", "the answer tokens"))
    if config.batching == "packed":
        raise ModelError(f"{info.name} cannot run packed: {problem}. Leave batching at 'auto', or set it to 'padded'.")
    set_attention(base, attention)
    attach_base(model, base)
    model.set_output_embeddings(head)  # type: ignore[no-untyped-call]
    torch.nn.Module.to(model, dtype)
    return whole, (
        Decision("path", "one prompt at a time", f"the self-check: {problem}"),
        Decision("head", "the whole model", "path"),
    )


def head_rows(head: torch.nn.Module, ids: list[int]) -> torch.nn.Linear:
    """Return the part of a model's head that gives the logits of some tokens, in float32."""
    weight, bias = head.weight, getattr(head, "bias", None)
    assert isinstance(weight, torch.Tensor)
    rows = torch.nn.Linear(weight.shape[1], len(ids), bias=bias is not None, device=weight.device)
    rows.weight.copy_(weight[ids])
    if isinstance(bias, torch.Tensor):
        rows.bias.copy_(bias[ids])
    return rows


def _whole(model: PreTrainedModel, ids: list[int], batch: Batch) -> torch.Tensor:
    """Run the model as transformers runs it, a prompt at a time: all logits of many prompts would not fit."""
    logits = [
        model(input_ids=token_ids[None], logits_to_keep=1).logits[0, -1, ids]
        for token_ids in batch.segments.split(batch.token_ids)
    ]
    return _less(torch.stack(logits).float())


def _less(logits: torch.Tensor) -> torch.Tensor:
    """Return the score of each sequence: the first logit, less the second where there is one. (sequences, 1)"""
    return logits[:, :1] - logits[:, 1:] if logits.shape[1] > 1 else logits
