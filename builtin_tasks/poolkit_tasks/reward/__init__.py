"""The task `reward`: how good a text is, as a whole, at each token, or at each step of its reasoning."""

from poolkit import Activation, HeadKind, ModelInfo, Operation, Output, PoolingRequest, PoolingResponse, PoolingTask

__all__ = ["REWARD"]


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot serve the task, or None if it can."""
    if Output.TOKEN_LOGITS in model.outputs:
        return None
    if Output.LOGITS not in model.outputs or model.classifier is None:
        return "it is no reward model: it has neither a classification head nor pooling_type STEP"
    if model.num_labels != 1:
        return f"it has {model.num_labels} labels, and a reward model gives a sequence one score; serve it as classify"
    return None


def preference(model: ModelInfo) -> int:
    """Return that a reward model is served as one, and any other classifier as what it is."""
    return 1 if model.head is HeadKind.REWARD or model.config.pooler_config.pooling_type == "STEP" else -1


REWARD = PoolingTask(
    name="reward",
    api=1,
    summary="The raw scores of a reward model: of a text, of each token, or of each step.",
    output=Output.TOKEN_LOGITS,
    or_outputs=(Output.LOGITS,),
    activation=Activation.MODEL,
    activates=False,
    parameters=("use_activation", "step_tag_id", "returned_token_ids"),
    requires=why_not,
    preference=preference,
    operations=(
        Operation(
            name="pooling",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="poolkit_tasks.reward.processors:RewardProcessor",
            per_prompt=("data", "prompt_token_ids"),
        ),
    ),
)
