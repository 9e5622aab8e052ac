"""Splits a model into backbone and head, each run as fast as it goes.

transformers models take `inputs_embeds` and give them to their base as they are. So a stand-in for the base that
answers with them makes the whole model a function of hidden states, whatever its head consists of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from poolkit.contract import Decision, States
from poolkit.engine.batch import fit_states
from poolkit.engine.poolers.classifier import ClassifierPooler
from poolkit.engine.poolers.tokens import TokenPooler
from poolkit.engine.poolers.vector import VectorPooler
from poolkit.engine.torch.backbone import TorchBackbone
from poolkit.engine.torch.forward import Forward, RunPacked, padded_logits
from poolkit.engine.torch.self_check import (
    TOLERANCE,
    check_batch,
    choose_forward,
    padding_id,
    refuse_packed,
    set_attention,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

    from poolkit.contract import Backbone, Batch, ModelInfo, Pooler
    from poolkit.engine.torch.loading import Placement

__all__ = ["Head", "detach_base", "split", "split_classifier"]

NO_PADDING = -1
"""No token's id. A decoder's head takes several rows at a time only where its config names a padding token."""


@dataclass(frozen=True, slots=True)
class Head:
    """A way to run the head of a model without its base.

    Attributes:
        pooler: runs it on hidden states.
        decision: what it reads, for the start-up report.
        prepare: makes the model ready for that once its base is detached; returns what undoes it.
    """

    pooler: Pooler[torch.Tensor]
    decision: Decision
    prepare: Callable[[], Callable[[], None]]


class PassThrough(torch.nn.Module):
    """Stands in for a base model: what it is given as `inputs_embeds` is its last hidden state.

    A base's own pooler (BERT's) belongs to the head and stays.
    """

    def __init__(self, pooler: torch.nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(
        self, *_ignored: object, inputs_embeds: torch.Tensor, **_also: object
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Return the hidden states (rows, tokens, hidden), and what the pooler makes of them."""
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)


def detach_base(model: PreTrainedModel) -> PreTrainedModel:
    """Put a `PassThrough` in the place of the model's base, and return the base, its pooler left behind."""
    base: PreTrainedModel = getattr(model, model.base_model_prefix)
    pooler = getattr(base, "pooler", None)
    if pooler is not None:
        setattr(base, "pooler", None)  # noqa: B010 - its declared type has no None
    setattr(model, model.base_model_prefix, PassThrough(pooler))
    return base


@torch.inference_mode()
def split(
    model: PreTrainedModel,
    info: ModelInfo,
    placement: Placement,
    *,
    head: Head,
    whole: Callable[[Batch], torch.Tensor],
    whole_path: str,
    per_token: bool = False,
    run: RunPacked | None = None,
) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
    """Split a model into its base and its head, which is then in float32.

    Where the two do not give what the whole model gives, it is left whole: the backbone gives the logits, and the
    pooler passes them through.

    Args:
        model: with its head.
        info: what the model's files say.
        placement: where its weights are.
        head: how the head is run alone.
        whole: runs the whole model: logits of each prompt, or of each token.
        whole_path: how it does so, for the start-up report.
        per_token: True if there are logits of each token.
        run: runs a packed batch through the base; None for the usual way.

    Raises ModelError where packed was asked for and the model cannot run so.
    """
    batch = check_batch(model, info)
    expected = whole(batch)
    attention = model.config._attn_implementation
    base = detach_base(model)
    forward, path = choose_forward(base, info, run=run)
    undo = head.prepare()
    problem = _difference(forward, head, batch, expected, allowed=TOLERANCE[placement.dtype])
    if problem is None:
        decisions = (*placement.decisions, path, head.decision)
        return TorchBackbone({"text": forward}, decisions=decisions, base=base), head.pooler
    refuse_packed(info, problem)
    undo()
    set_attention(base, attention)
    _attach_base(model, base)
    decisions = (
        *placement.decisions,
        Decision("path", whole_path, f"the self-check: {problem}"),
        Decision("head", "the whole model", "path"),
    )

    def run_whole(batch: Batch) -> States[torch.Tensor]:
        return States(whole(batch)) if per_token else States(rows=whole(batch))

    pooler: Pooler[torch.Tensor] = TokenPooler() if per_token else VectorPooler(())
    return TorchBackbone({"text": run_whole}, decisions=decisions), pooler


def split_classifier(
    model: PreTrainedModel, info: ModelInfo, placement: Placement, *, per_token: bool, run: RunPacked | None = None
) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
    """Split a classifier of texts, or of tokens where `per_token`. See `split`."""
    pad_token_id = padding_id(model)
    pooler = ClassifierPooler(model, info, pad_token_id=pad_token_id, per_token=per_token)

    def prepare() -> Callable[[], None]:
        dtype, settings = model.dtype, model.config.get_text_config()
        torch.nn.Module.float(model)
        if pad_token_id is None:
            settings.pad_token_id = NO_PADDING

        def undo() -> None:
            settings.pad_token_id = pad_token_id
            torch.nn.Module.to(model, dtype)

        return undo

    return split(
        model,
        info,
        placement,
        head=Head(pooler, Decision("head", f"the model's own, on {pooler.reads}", "the architecture"), prepare),
        whole=partial(
            padded_logits,
            model,
            pad_token_id=pad_token_id or 0,
            # Without a padding token a decoder's head does not find the last one of a padded row: run each row alone.
            max_tokens=1 if pad_token_id is None else info.config.max_num_batched_tokens,
            per_token=per_token,
        ),
        whole_path="padded",
        per_token=per_token,
        run=run,
    )


def _attach_base(model: PreTrainedModel, base: PreTrainedModel) -> None:
    """Undo `detach_base`."""
    stand_in: PassThrough = getattr(model, model.base_model_prefix)
    if stand_in.pooler is not None:
        base.pooler = stand_in.pooler
    setattr(model, model.base_model_prefix, base)


def _difference(forward: Forward, head: Head, batch: Batch, expected: torch.Tensor, *, allowed: float) -> str | None:
    """Return how far the head on its hidden states is off from the whole model, or None if it gives the same."""
    try:
        actual = head.pooler(fit_states(forward(batch), batch), batch).rows
    except Exception as exc:  # noqa: BLE001 - whatever a model's code raises is a reason to run it whole
        return f"the head alone raised {type(exc).__name__}: {exc}"
    if actual.shape != expected.shape:
        return f"the head alone gives shape {tuple(actual.shape)}, the whole model {tuple(expected.shape)}"
    worst = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if worst <= allowed:
        return None
    return f"the head alone differs from the whole model by {worst:.1e} of the largest logit, more than {allowed:.0e}"
