"""Runs a classifier: its base as fast as it goes, then the model's own head on the rows that the head reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from poolkit.engine.heads.pass_through import attach_base, detach_base
from poolkit.engine.heads.pooling import pool
from poolkit.engine.passes.run import Pass, padded_logits
from poolkit.engine.passes.self_check import TOLERANCE, check_batch, choose_pass, padding_id, set_attention
from poolkit.errors import ModelError
from poolkit.models import Decision, ModelInfo, PoolingMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.config import ModelConfig
    from poolkit.engine.passes.segments import Batch

__all__ = ["choose_logits", "head_problem"]

WHAT_IS_READ = {
    PoolingMode.CLS: "the first token",
    PoolingMode.LAST: "the last token",
    PoolingMode.MEAN: "the mean of the tokens",
    None: "every token",
}

NO_PADDING = -1
"""No token's id. A decoder's head takes several rows at a time only where its config names a padding token."""


@torch.inference_mode()
def choose_logits(
    model: PreTrainedModel, info: ModelInfo, config: ModelConfig, *, per_token: bool
) -> tuple[Pass, tuple[Decision, ...]]:
    """Return how to get a classifier's logits in float32, and why.

    What is returned gives (sequences, labels), or (tokens, labels) where `per_token`. A head that does not give what
    the whole padded model gives is left where it is, and the model is run whole.

    Raises ModelError where packed was asked for and the model cannot run so.
    """
    batch = check_batch(model, info)
    pad_token_id = padding_id(model)
    whole = partial(
        padded_logits,
        model,
        pad_token_id=pad_token_id or 0,
        # Without a padding token a decoder's head does not find the last one of a padded row: run each row alone.
        max_tokens=1 if pad_token_id is None else config.max_num_batched_tokens,
        per_token=per_token,
    )
    expected = whole(batch)
    mode = None if per_token else _mode(model, info)
    dtype, attention = model.dtype, model.config._attn_implementation
    base = detach_base(model)
    run_base, path = choose_pass(base, info, config)
    read = partial(_read, mode=mode, pad_token_id=pad_token_id)

    def own_head(batch: Batch) -> torch.Tensor:
        return _apply(model, *read(run_base(batch), batch))

    torch.nn.Module.float(model)
    settings = model.config.get_text_config()
    if pad_token_id is None:
        settings.pad_token_id = NO_PADDING
    problem = head_problem(own_head, batch, expected, allowed=TOLERANCE[dtype])
    if problem is None:
        return own_head, (path, Decision("head", f"the model's own, on {WHAT_IS_READ[mode]}", "the architecture"))
    if config.batching == "packed":
        raise ModelError(f"{info.name} cannot run packed: {problem}. Leave batching at 'auto', or set it to 'padded'.")
    set_attention(base, attention)
    settings.pad_token_id = pad_token_id
    torch.nn.Module.to(model, dtype)
    attach_base(model, base)
    return whole, (
        Decision("path", "padded", f"the self-check: {problem}"),
        Decision("head", "the whole model", "path"),
    )


def _mode(model: PreTrainedModel, info: ModelInfo) -> PoolingMode:
    """Return what a sequence classifier's head reads: a decoder's the last token, an encoder's mostly the first."""
    from transformers.modeling_layers import GenericForSequenceClassification

    if isinstance(model, GenericForSequenceClassification) or info.pooling.modes == (PoolingMode.LAST,):
        return PoolingMode.LAST
    if getattr(model.config, "classifier_pooling", None) == "mean":
        return PoolingMode.MEAN
    return PoolingMode.CLS


def _read(
    hidden: torch.Tensor, batch: Batch, *, mode: PoolingMode | None, pad_token_id: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden states that the head reads, as (rows, tokens, hidden), and the token ids they stand for."""
    if mode is None:
        return hidden[None].float(), batch.token_ids[None]  # (1, tokens, hidden)
    segments = batch.segments
    if mode is not PoolingMode.LAST or pad_token_id is None:
        return pool(hidden, segments, [mode])[:, None], batch.token_ids[segments.ends - 1][:, None]
    # transformers takes the last token that is no padding, even where a prompt itself ends in padding tokens.
    is_text = batch.token_ids != pad_token_id
    places = torch.where(is_text, segments.places, 0)  # (tokens,)
    furthest = torch.zeros_like(segments.lengths).scatter_reduce(0, segments.owners, places, reduce="amax")
    chosen = segments.starts + furthest  # (sequences,)
    return hidden[chosen].float()[:, None], batch.token_ids[chosen][:, None]


def _apply(head: PreTrainedModel, rows: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of hidden states: (rows, labels) for (rows, 1, hidden) as for (1, rows, hidden)."""
    logits: torch.Tensor = head(inputs_embeds=rows, input_ids=token_ids).logits
    return logits.flatten(0, -2)


def head_problem(
    own_head: Callable[[Batch], torch.Tensor], batch: Batch, expected: torch.Tensor, *, allowed: float
) -> str | None:
    """Return how far the head on its rows is off from the whole model, or None if it gives what is expected."""
    try:
        actual = own_head(batch)
    except Exception as exc:  # noqa: BLE001 - whatever a model's code raises is a reason to run it whole
        return f"the head alone raised {type(exc).__name__}: {exc}"
    if actual.shape != expected.shape:
        return f"the head alone gives shape {tuple(actual.shape)}, the whole model {tuple(expected.shape)}"
    worst = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if worst <= allowed:
        return None
    return f"the head alone differs from the whole model by {worst:.1e} of the largest logit, more than {allowed:.0e}"
