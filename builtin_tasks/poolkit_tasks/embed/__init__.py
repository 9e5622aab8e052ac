"""The task `embed`: one vector per prompt."""

from poolkit import (
    POOLING,
    Activation,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Operation,
    Output,
    PoolingTask,
)
from poolkit_tasks.scoring import BI_ENCODER_OPERATIONS

__all__ = ["EMBED"]

EMBED = PoolingTask(
    name="embed",
    api=1,
    summary="One vector per prompt, for similarity search and clustering.",
    output=Output.VECTOR,
    activation=Activation.NORMALIZE,
    operations=(
        Operation(
            name="embeddings",
            request=EmbeddingsRequest,
            response=EmbeddingsResponse,
            io_processor="poolkit_tasks.embed.processors:EmbeddingsProcessor",
            per_prompt=("embeddings", "prompt_token_ids"),
        ),
        POOLING,
        *BI_ENCODER_OPERATIONS,
    ),
)
