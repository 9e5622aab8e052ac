"""The task `embed`: one vector per prompt."""

from poolkit import (
    Activation,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Operation,
    Output,
    PoolingRequest,
    PoolingResponse,
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
        Operation(
            name="pooling",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="poolkit.processors:PoolingProcessor",
            per_prompt=("data", "prompt_token_ids"),
        ),
        *BI_ENCODER_OPERATIONS,
    ),
)
