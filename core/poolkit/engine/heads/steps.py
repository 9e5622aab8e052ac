"""What a process reward model answers of its logits for each token: some columns, and the rows at the ends of steps.

The reference is vLLM's pooling type STEP: columns first, then the softmax over them, then the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from poolkit.contract import Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import PoolingParams, PoolingTask
    from poolkit.models import ModelInfo

__all__ = ["choose_steps", "column_places", "step_tag"]


def column_places(params: PoolingParams, *, task: PoolingTask, info: ModelInfo) -> tuple[int, ...] | None:
    """Return where the columns that a prompt is to be answered with stand among the logits; None for all of them."""
    asked = params.returned_token_ids or info.config.pooler_config.returned_token_ids
    if asked is None or task.output is not Output.REWARDS:
        return None
    return tuple(info.columns.index(column) for column in asked)


def step_tag(params: PoolingParams, *, task: PoolingTask, info: ModelInfo) -> int | None:
    """Return the token whose rows a prompt is to be answered with; None for the rows of all tokens."""
    if task.output is not Output.REWARDS or Output.TOKEN_LOGITS not in info.outputs:
        return None
    return params.step_tag_id if params.step_tag_id is not None else info.steps.tag_id


def choose_steps(scores: NDArray[np.float32], token_ids: Sequence[int], step_tag_id: int | None) -> NDArray[np.float32]:
    """Return the rows at the tokens that end a step, in order. (tokens, columns) -> (steps, columns)"""
    return scores if step_tag_id is None else scores[np.asarray(token_ids) == step_tag_id]
