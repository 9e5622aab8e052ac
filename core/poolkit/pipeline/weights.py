"""Loads the weights of a prepared model, with what its task asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

from poolkit.contract import Output
from poolkit.engine.loading import load_model
from poolkit.engine.poolers.label_logits import create_label_head
from poolkit.engine.poolers.pooling import POOL, Pool
from poolkit.engine.poolers.task_head import create_head
from poolkit.errors import ModelError

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

    from poolkit.contract import HeadContext, ModelInfo, Pooler, PoolingTask, PromptEncoder
    from poolkit.engine.choice import EngineChoice
    from poolkit.engine.model import LoadedModel

__all__ = ["load_weights"]


def load_weights(
    engines: EngineChoice,
    info: ModelInfo,
    *,
    task: PoolingTask,
    settings: BaseModel,
    encoder: PromptEncoder,
    pooling: Mapping[str, object] = POOL,
) -> LoadedModel[torch.Tensor]:
    """Load the weights of the model that `info` describes, with the head that `task` asks for.

    Raises ModelError where the model cannot be loaded, or cannot give what the task asks for.
    """
    if task.output not in info.outputs:
        raise ModelError(
            f"{info.name} gives {', '.join(info.outputs)}; task {task.name!r} asks for {task.output.value}. Choose "
            "another task or another model."
        )
    return load_model(
        engines,
        info,
        output=task.output,
        activation=task.activation,
        kind=task.output_kind,
        encoder=encoder,
        settings=settings,
        create_head=_head(task),
        taps=task.taps,
        pooling=cast("Mapping[str, Pool]", pooling),
    )


def _head(task: PoolingTask) -> Callable[[HeadContext], Pooler[torch.Tensor]] | None:
    """Return what makes the task's own head; None for the model's."""
    if task.head is not None:
        return partial(create_head, task.head, task=task.name)
    if task.output is Output.LABEL_LOGITS:
        return partial(create_label_head, task.label_tokens, task=task.name)
    return None
