"""Refuses pooling parameters that the served task does not know, or that the model cannot honour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from poolkit.contract import Output, PoolingParams, PoolingTask
from poolkit.errors import RequestError
from poolkit.models import ModelInfo

__all__ = ["check_params"]

ABOUT_POOLING = ("dimensions", "use_activation", "step_tag_id", "returned_token_ids")
"""What a task may not know. The other parameters are about tokenization, or set by IO processors."""
OF_PROCESSORS = ("parts", "late_interaction")


def check_params(params: Iterable[PoolingParams], *, task: PoolingTask, model: ModelInfo) -> None:
    """Raise RequestError unless every prompt's parameters can be honoured."""
    for one in set(params):
        for name in ABOUT_POOLING:
            if getattr(one, name) is not None and name not in task.parameters:
                known = [
                    known.name
                    for known in fields(PoolingParams)
                    if known.name in task.parameters or known.name not in (*ABOUT_POOLING, *OF_PROCESSORS)
                ]
                raise RequestError(
                    f"The task {task.name!r} does not know {name}. It knows {', '.join(known)}.", param=name
                )
        if task.output is Output.REWARDS:
            _check_steps(one, model)
        if one.dimensions is not None and task.output is not Output.HIDDEN:
            _check_dimensions(one.dimensions, model, task)


def _check_steps(params: PoolingParams, model: ModelInfo) -> None:
    asked = [name for name in ("step_tag_id", "returned_token_ids") if getattr(params, name) is not None]
    if asked and Output.TOKEN_LOGITS not in model.outputs:
        raise RequestError(
            f"{model.name} scores a text as a whole: it has no steps. Leave out {asked[0]}.", param=asked[0]
        )
    for column in params.returned_token_ids or ():
        if column not in model.columns:
            raise RequestError(
                f"returned_token_ids holds {column}; {model.name} offers {', '.join(map(str, model.columns))}"
                f"{'' if model.num_labels else ' (pooler_config.returned_token_ids)'}.",
                param="returned_token_ids",
            )


def _check_dimensions(dimensions: int, model: ModelInfo, task: PoolingTask) -> None:
    size = model.embedding_size if task.output is Output.VECTOR else model.token_vector_size
    if dimensions == size:
        return
    if model.vector.matryoshka_dimensions is None:
        raise RequestError(
            f"{model.name} is not a Matryoshka model: its vectors have {size} dimensions. Leave out dimensions.",
            param="dimensions",
        )
    if model.vector.matryoshka_dimensions and dimensions not in model.vector.matryoshka_dimensions:
        allowed = ", ".join(str(number) for number in model.vector.matryoshka_dimensions)
        raise RequestError(f"dimensions is {dimensions}; {model.name} offers {allowed}.", param="dimensions")
    if not 1 <= dimensions <= size:
        raise RequestError(f"dimensions is {dimensions}; {model.name} offers 1 to {size}.", param="dimensions")
