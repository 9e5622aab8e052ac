"""Refuses what the operator says in `PoolerConfig` and the chosen task or model cannot follow: nothing is ignored."""

from __future__ import annotations

from collections.abc import Iterator

from poolkit.config import PoolerConfig
from poolkit.contract import ModelInfo, Output, PoolingTask
from poolkit.errors import ConfigError

__all__ = ["check_pooler"]

OF_VECTORS = ("CLS", "LAST", "MEAN")
OF_STEPS = ("step_tag_id", "returned_token_ids")
OF_TOKENS = (Output.TOKEN_VECTORS, Output.TOKEN_LOGITS)


def check_pooler(model: ModelInfo, *, task: PoolingTask) -> None:
    """Raise ConfigError for every field that has no effect on this task of this model."""
    pooler = model.config.pooler_config
    problems = [
        f"pooler_config.{name} is {getattr(pooler, name)!r}, {why}" for name, why in _problems(pooler, task, model)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(pooler: PoolerConfig, task: PoolingTask, model: ModelInfo) -> Iterator[tuple[str, str]]:
    """Yield each field that cannot be followed, and how the sentence about it goes on."""
    wrong_pooling = _wrong_pooling(pooler, task, model)
    if wrong_pooling:
        yield "pooling_type", wrong_pooling
    for name, parameter in (
        ("use_activation", "use_activation"),
        ("dimensions", "dimensions"),
        ("matryoshka", "dimensions"),
        ("step_tag_id", "step_tag_id"),
        ("returned_token_ids", "returned_token_ids"),
    ):
        if getattr(pooler, name) is None:
            continue
        if parameter not in task.parameters:
            yield name, f"but task {task.name!r} does not know {parameter}. Leave it out."
        elif name in OF_STEPS and task.output is not Output.TOKEN_LOGITS:
            yield name, f"but {model.name} scores a text as a whole: it has no steps. Leave it out."
    for name in ("logit_mean", "logit_sigma"):
        if getattr(pooler, name) is not None and task.output is not Output.LOGITS:
            yield name, f"but task {task.name!r} has no logits of whole texts. Leave it out."
    if pooler.max_embed_len is not None and not pooler.enable_chunked_processing:
        yield (
            "max_embed_len",
            "but longer prompts run in chunks only with pooler_config.enable_chunked_processing. Set that too, or set "
            "max_model_len.",
        )


def _wrong_pooling(pooler: PoolerConfig, task: PoolingTask, model: ModelInfo) -> str | None:
    if pooler.pooling_type is None:
        return None
    fitting: tuple[str, ...] = ()
    if task.output is Output.VECTOR and not any(family.pools_itself for family in model.families):
        fitting = OF_VECTORS
    elif task.output in OF_TOKENS:
        fitting = ("ALL", "STEP") if "step_tag_id" in task.parameters else ("ALL",)
    if pooler.pooling_type in fitting:
        return None
    if fitting:
        return f"but task {task.name!r} of {model.name} goes with {' or '.join(fitting)}. Take one, or another task."
    return f"but task {task.name!r} of {model.name} reads what its head was made to read. Leave pooling_type out."
