"""Request and response of late chunking: a text is cut into chunks after the model has read it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from poolkit import FloatArray, PoolingFields, Usage

__all__ = ["LateChunkingRequest", "LateChunkingResponse"]


class LateChunkingRequest(PoolingFields):
    """Embed parts of a text in the light of the whole."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"text": "Berlin is old. The city has parks.", "chunks": [[0, 14], [15, 34]]}]},
    )

    text: str = Field(description="The whole text: it runs once.")
    chunks: list[tuple[int, int]] = Field(description="Of each part the first character and one past the last.")
    dimensions: int | None = Field(default=None, ge=1, description="Length of the vectors (Matryoshka models only).")


class LateChunkingResponse(BaseModel):
    """One vector per chunk, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    embeddings: FloatArray = Field(description="Shape (chunks, dim), float32.")
    usage: Usage
