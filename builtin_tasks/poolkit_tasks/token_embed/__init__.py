"""The task `token_embed`: one vector per token, for late interaction."""

from poolkit import POOLING, Activation, Operation, Output, PoolingTask
from poolkit_tasks.scoring import LATE_INTERACTION_OPERATIONS
from poolkit_tasks.token_embed.schema import LateChunkingRequest, LateChunkingResponse

__all__ = ["TOKEN_EMBED"]

TOKEN_EMBED = PoolingTask(
    name="token_embed",
    api=1,
    summary="One vector per token, for late interaction.",
    output=Output.TOKEN_VECTORS,
    activation=Activation.NORMALIZE,
    operations=(
        POOLING,
        *LATE_INTERACTION_OPERATIONS,
        Operation(
            name="late_chunking",
            request=LateChunkingRequest,
            response=LateChunkingResponse,
            io_processor="poolkit_tasks.token_embed.late_chunking:LateChunkingProcessor",
        ),
    ),
)
