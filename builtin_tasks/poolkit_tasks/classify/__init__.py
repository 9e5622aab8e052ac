"""The task `classify`: how well each label fits a text or a pair of texts."""

from poolkit import (
    POOLING,
    Activation,
    ClassifyRequest,
    ClassifyResponse,
    Operation,
    Output,
    PoolingTask,
)
from poolkit_tasks.scoring import CROSS_ENCODER_OPERATIONS

__all__ = ["CLASSIFY"]

CLASSIFY = PoolingTask(
    name="classify",
    api=1,
    summary="A score for each label of a classifier.",
    output=Output.LOGITS,
    activation=Activation.MODEL,
    parameters=("use_activation",),
    operations=(
        Operation(
            name="classify",
            request=ClassifyRequest,
            response=ClassifyResponse,
            io_processor="poolkit_tasks.classify.processors:ClassifyProcessor",
            per_prompt=("data", "prompt_token_ids"),
        ),
        POOLING,
        *CROSS_ENCODER_OPERATIONS,
    ),
)
