"""The start-up report as far as it is known before the weights are read: what the chosen task uses, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from poolkit.config import ModelConfig
from poolkit.contract import Activation, Decision, ModelInfo, Output, PoolingTask
from poolkit.pipeline.params import ParamsResolver
from poolkit.registry import Registry

__all__ = ["report", "report_quarantined"]

SCORES = (Output.LOGITS, Output.TOKEN_LOGITS)


def report(model: ModelInfo, task: PoolingTask) -> tuple[Decision, ...]:
    """Return what was decided for one task of a model, and where each value comes from."""
    return (
        _task(task, model.config),
        *(line for line in model.decisions if line.outputs is None or task.output in line.outputs),
        _head(model, task),
        *_of_task(model, task),
    )


def report_quarantined(registry: Registry) -> tuple[Decision, ...]:
    """Return what an enabled plugin offers and cannot be used, and why; its full error is in the log."""
    return tuple(
        Decision(
            "quarantined",
            f"{failure.entry_point.kind} {failure.entry_point.short_name} of {failure.plugin}",
            str(failure.error).splitlines()[0],
        )
        for failure in registry.quarantined
    )


def _task(task: PoolingTask, config: ModelConfig) -> Decision:
    named = {"task": config.task, "pooler_config.task": config.pooler_config.task}
    source = next((key for key, name in named.items() if name is not None), "the first that the model can serve")
    return Decision("task", task.name, source)


def _head(model: ModelInfo, task: PoolingTask) -> Decision:
    """Return what makes the task's outputs of the model's token vectors, beside pooling."""
    if task.head is not None:
        return Decision("head", task.head, f"task {task.name!r}")
    if task.output in SCORES:
        score = next((one for one in model.decisions if one.name == "score"), None)  # of a yes/no reranker
        return replace(score, name="head") if score else Decision("head", f"{model.architecture}'s own", "config.json")
    if any(family.pools_itself for family in model.families):
        normalizes = " and normalisation, whatever is asked" if model.text.only_queries else ""
        return Decision("head", f"{model.architecture}'s own projection{normalizes}", "config.json")
    layers = (*model.pooling.token_layers, *(model.pooling.layers if task.output is Output.VECTOR else ()))
    if not layers:
        return Decision("head", "none", "the model's files name none")
    return Decision("head", "; ".join(map(str, layers)), "the model's own layers")


def _of_task(model: ModelInfo, task: PoolingTask) -> Iterator[Decision]:
    pooler = model.config.pooler_config
    is_models = task.activation is Activation.MODEL
    activation = model.label_activation if is_models else task.activation
    if activation is not Activation.IDENTITY:
        is_on = ParamsResolver(task, model).activates()
        source = f"task {task.name!r}" if pooler.use_activation is None else "pooler_config.use_activation"
        yield Decision("activation", activation if is_on else "none unless a request asks for it", source)
    for name in ("logit_mean", "logit_sigma"):
        if getattr(pooler, name) is not None:
            yield Decision(name.replace("_", " "), str(getattr(pooler, name)), f"pooler_config.{name}")
    if task.output is Output.TOKEN_VECTORS or not pooler.enable_flash_late_interaction:
        place = "next to the model" if pooler.enable_flash_late_interaction else "after the model"
        value = place if task.output is Output.TOKEN_VECTORS else f"not used: task {task.name!r} has none"
        is_default = "enable_flash_late_interaction" not in pooler.model_fields_set
        yield Decision(
            "late interaction", value, "the default" if is_default else "pooler_config.enable_flash_late_interaction"
        )
    if pooler.enable_chunked_processing:
        longest = "any length" if pooler.max_embed_len is None else f"up to {pooler.max_embed_len} tokens"
        yield Decision("long prompts", f"in chunks, {longest}", "pooler_config.enable_chunked_processing")
