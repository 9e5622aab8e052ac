"""The operation `pooling`: whatever the served task pools, for each prompt."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from poolkit.operations.answers import FloatArray, Usage
from poolkit.operations.prompts import PromptsRequest

__all__ = ["PoolingRequest", "PoolingResponse"]


class PoolingRequest(PromptsRequest):
    """Return what the model pools for each prompt, whatever the served task is."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["A cat sat on the mat."]}]},
    )

    task: str | None = Field(default=None, description="Must be the served task; a check, not a choice.")
    dimensions: int | None = Field(default=None, ge=1, description="Length of the vectors (Matryoshka models only).")
    step_tag_id: int | None = Field(
        default=None, ge=0, description="Return the rows at this token (process reward models)."
    )
    returned_token_ids: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Return only these columns (process reward models)."
    )


class PoolingResponse(BaseModel):
    """What was pooled for each prompt, in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    data: list[FloatArray] = Field(description="Per prompt, float32: (dim,), (labels,), or one of those per token.")
    prompt_token_ids: list[list[int]] = Field(exclude=True, description="Per prompt; not sent over HTTP.")
    usage: Usage
