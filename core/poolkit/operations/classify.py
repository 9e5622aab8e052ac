"""The operation `classify`: which labels each prompt has, and how sure the model is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from poolkit.operations.answers import FloatArray, Usage
from poolkit.operations.prompts import PromptsRequest
from poolkit.operations.token_ids import PromptTokenIds

__all__ = ["Classification", "ClassifyRequest", "ClassifyResponse", "LabelScore"]


class ClassifyRequest(PromptsRequest):
    """Classify each prompt."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]},
    )

    top_k: int | None = Field(default=None, ge=1, description="List at most so many labels. Default: no limit.")
    threshold: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="List only labels with a higher score. Default: 0.5 where a text can have several labels (a logit "
        "of 0 where use_activation is off), else no threshold.",
    )


class LabelScore(BaseModel):
    """A label and its score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    score: float


class Classification(BaseModel):
    """The labels and scores of one prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    label: str = Field(description="The label with the highest score, whether it is listed or not.")
    labels: list[LabelScore] = Field(description="The labels that top_k and threshold leave, highest score first.")
    probs: FloatArray = Field(description="Shape (labels,), float32: the score of every label, in the model's order.")


class ClassifyResponse(BaseModel):
    """One classification per prompt, in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    data: list[Classification]
    prompt_token_ids: PromptTokenIds
    usage: Usage
