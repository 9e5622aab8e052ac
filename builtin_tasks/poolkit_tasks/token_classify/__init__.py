"""The task `token_classify`: labels for each token, and the entities that they make up."""

from poolkit import (
    POOLING,
    Activation,
    ModelInfo,
    Operation,
    Output,
    PoolingTask,
    TokenClassifyRequest,
    TokenClassifyResponse,
)

__all__ = ["TOKEN_CLASSIFY"]


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot serve the task, or None if it can."""
    if model.config.pooler_config.pooling_type == "STEP":
        return "its pooling_type is STEP, which answers steps and not tokens; serve it as reward"
    return None


TOKEN_CLASSIFY = PoolingTask(
    name="token_classify",
    api=1,
    summary="A score for each label of each token, and the entities in a text.",
    output=Output.TOKEN_LOGITS,
    activation=Activation.MODEL,
    parameters=("use_activation",),
    requires=why_not,
    operations=(
        Operation(
            name="token_classify",
            request=TokenClassifyRequest,
            response=TokenClassifyResponse,
            io_processor="poolkit_tasks.token_classify.processors:TokenClassifyProcessor",
            per_prompt=("data", "prompt_token_ids"),
        ),
        POOLING,
    ),
)
