"""The operation `embeddings`: one vector per prompt."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from poolkit.operations.answers import FloatArray, Usage
from poolkit.operations.prompts import PromptsRequest
from poolkit.operations.token_ids import PromptTokenIds

__all__ = ["EmbeddingsRequest", "EmbeddingsResponse"]


class EmbeddingsRequest(PromptsRequest):
    """Embed each prompt as one vector."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]},
    )

    dimensions: int | None = Field(default=None, ge=1, description="Length of the vectors (Matryoshka models only).")


class EmbeddingsResponse(BaseModel):
    """One vector per prompt, in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    embeddings: FloatArray = Field(description="Shape (prompts, dim), float32.")
    prompt_token_ids: PromptTokenIds
    usage: Usage
