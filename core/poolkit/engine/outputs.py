"""What a task wants of the model, as one function from a batch to raw outputs: vectors, logits or its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from poolkit.contract import Output
from poolkit.engine.answers import Raw, gather
from poolkit.engine.heads.classifier import choose_logits
from poolkit.engine.heads.layers import load_layers
from poolkit.engine.heads.pooling import pool
from poolkit.engine.heads.rewards import load_reward_head, load_token_scores
from poolkit.engine.heads.task_head import create_head
from poolkit.engine.heads.token_vectors import TokenVectors
from poolkit.engine.heads.yes_no import choose_score, find_answer_ids
from poolkit.engine.images import ProduceImages, load_image_model
from poolkit.engine.loading import load_model
from poolkit.engine.passes.run import Pass, takes_token_types
from poolkit.engine.passes.self_check import choose_pass
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.config import ModelConfig
    from poolkit.contract import PoolingTask
    from poolkit.engine.heads.task_head import Head
    from poolkit.engine.passes.segments import Batch
    from poolkit.models import Decision, ModelInfo

__all__ = ["Outputs", "Produce", "load_outputs"]

Produce: TypeAlias = Callable[["Batch"], Raw]
"""Runs a batch and returns what its sequences gave, in the batch's order."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was loaded.

    Attributes:
        produce: runs texts.
        takes_types: whether the model takes token types.
        decisions: what was decided.
        produce_images: runs images; None where the model reads none.
    """

    produce: Produce
    takes_types: bool
    decisions: tuple[Decision, ...]
    produce_images: ProduceImages | None = None


CLASSIFIERS = {
    Output.LOGITS: "AutoModelForSequenceClassification",
    Output.TOKEN_LOGITS: "AutoModelForTokenClassification",
}


def load_outputs(
    info: ModelInfo, task: PoolingTask, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> Outputs:
    """Load the model with what `task` wants on top of it.

    Raises ModelError where the model or the task's head cannot be loaded.
    """
    if task.head is not None:
        head = create_head(task, task.head, info, device=device)
        model = load_model(info, config, dtype=dtype, device=device)
        run, path = choose_pass(model, info, config)
        return Outputs(_headed(run, head, info), takes_token_types(model), (path,))
    if info.images is not None:
        texts, images, decisions = load_image_model(info, config, dtype=dtype, device=device)
        return Outputs(texts, False, decisions, produce_images=images)
    if task.output in (*CLASSIFIERS, Output.REWARDS):
        return _load_classifier(info, task, config, dtype=dtype, device=device)
    tokens = TokenVectors(info, config, device=device)
    layers = load_layers(info.pooling.layers, device=device)
    model = load_model(info, config, dtype=dtype, device=device)
    run, path = choose_pass(model, info, config)

    def vectors(batch: Batch) -> Raw:
        hidden = run(batch)
        if info.pooling.token_layers:
            hidden = tokens.of(hidden, batch)
        rows = pool(hidden, batch.segments, info.pooling.modes)  # (sequences, dim)
        return Raw(layers(rows, batch.queries.bool))

    def per_token(batch: Batch) -> Raw:
        return tokens.answered(run(batch), batch)

    return Outputs(vectors if task.output is Output.VECTOR else per_token, takes_token_types(model), (path,))


def _load_classifier(
    info: ModelInfo, task: PoolingTask, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> Outputs:
    per_token = Output.TOKEN_LOGITS in ((task.output,) if task.output in CLASSIFIERS else info.outputs)
    model: PreTrainedModel
    if info.reranker.logit_score is not None:
        answer_ids = find_answer_ids(info.reranker.logit_score, info, config)
        model = load_model(info, config, dtype=dtype, device=device, kind="AutoModelForCausalLM")
        run, decisions = choose_score(model, info, config, answer_ids=answer_ids)
        return Outputs(lambda batch: Raw(run(batch)), False, decisions)
    if info.has_reward_head:
        run, has_types, decisions = load_reward_head(info, config, per_token=per_token, dtype=dtype, device=device)
    elif info.label_names is None:
        run, has_types, decisions = load_token_scores(info, config, dtype=dtype, device=device)
    else:
        kind = CLASSIFIERS[Output.TOKEN_LOGITS if per_token else Output.LOGITS]
        model = load_model(info, config, dtype=dtype, device=device, kind=kind)
        has_types = takes_token_types(model)
        run, decisions = choose_logits(model, info, config, per_token=per_token)
    return Outputs(lambda batch: Raw(run(batch), batch.segments.sizes if per_token else None), has_types, decisions)


def _headed(run: Pass, head: Head, info: ModelInfo) -> Produce:
    def produce(batch: Batch) -> Raw:
        hidden = run(batch)
        try:
            pooled = head(hidden, batch.token_ids, batch.segments)
        except SystemExit as exc:  # must not end the engine's thread
            raise EngineError(f"The task's head asked to exit while it served {info.name}.") from exc
        return gather(pooled, sequences=len(batch.segments.sizes))

    return produce
