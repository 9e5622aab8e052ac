"""What a model's head makes it good for: told by its architecture, and by the operator's `pooling_type`."""

from __future__ import annotations

from poolkit.config import ModelConfig
from poolkit.contract import Activation, Output
from poolkit.contract.model_info import REWARD_HEADS, Decision
from poolkit.contract.model_specs import StepSpec
from poolkit.errors import ModelError

__all__ = ["EVERY_MODELS_OUTPUTS", "head_outputs", "read_steps"]

STEP_TAGS = {"Qwen2ForProcessRewardModel": 151651}
"""The token after each step: <extra_0>, which the model card of Qwen2.5-Math-PRM puts there."""

EVERY_MODELS_OUTPUTS = (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)


def head_outputs(architecture: str, pooling_type: str | None) -> tuple[Output, ...]:
    """Return what the model can produce, best first."""
    of_tokens = pooling_type in ("ALL", "STEP")
    every = EVERY_MODELS_OUTPUTS[1:] if of_tokens else EVERY_MODELS_OUTPUTS
    if architecture.endswith("ForSequenceClassification"):
        return (Output.LOGITS, *every, Output.REWARDS)
    if architecture.endswith("ForTokenClassification") and pooling_type != "STEP":
        return (Output.TOKEN_LOGITS, *every, Output.REWARDS)
    if architecture.endswith("ForRewardModel") and not of_tokens:
        return (Output.REWARDS, Output.LOGITS, *every)
    has_step_head = architecture.endswith(("ForTokenClassification", "ForCausalLM")) and pooling_type == "STEP"
    if has_step_head or architecture.endswith(tuple(REWARD_HEADS)):
        return (Output.REWARDS, Output.TOKEN_LOGITS, *every)
    return every


def read_steps(
    config: ModelConfig, architecture: str, *, labels: int | None, vocab_size: int
) -> tuple[StepSpec, tuple[Decision, ...]]:
    """Return how the steps of a text are scored, and why.

    Args:
        config: what the operator says.
        architecture: the first of config.json's `architectures`.
        labels: how many a classifier has; None for other models.
        vocab_size: token ids are below this.

    Raises ModelError where the operator names a token or a column that the model does not have, or names none of a
    language model's columns.
    """
    pooler = config.pooler_config
    columns = pooler.returned_token_ids
    tag, source = pooler.step_tag_id, "pooler_config.step_tag_id"
    if tag is None and STEP_TAGS.get(architecture, vocab_size) < vocab_size:
        tag, source = STEP_TAGS[architecture], f"the architecture, {architecture}"
    known = vocab_size if labels is None else labels
    for name, value, end in [
        ("step_tag_id", tag, vocab_size),
        *(("returned_token_ids", one, known) for one in columns or ()),
    ]:
        if value is not None and not 0 <= value < end:
            raise ModelError(f"pooler_config.{name} has {value}; {config.model} has 0 to {end - 1} there.")
    if pooler.pooling_type == "STEP" and architecture.endswith("ForCausalLM") and columns is None:
        raise ModelError(
            f"pooler_config.pooling_type is 'STEP', and {config.model} is a language model. Say in "
            "pooler_config.returned_token_ids which tokens' logits score a step."
        )
    decisions = []
    if tag is not None:
        decisions.append(Decision("steps", f"the rows at token {tag}", source))
    if columns is not None:
        listed = ", ".join(map(str, columns))
        decisions.append(Decision("step columns", listed, "pooler_config.returned_token_ids"))
    activation = Activation.SOFTMAX if pooler.pooling_type == "STEP" else Activation.IDENTITY
    return StepSpec(tag_id=tag, activation=activation), tuple(decisions)
