"""The operations `score` and `rerank`: how well documents answer queries, whatever kind of model says so."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from poolkit.operations.answers import FloatArray, Usage
from poolkit.operations.modalities import TextOrModality, TextsOrModalities, is_of_modality
from poolkit.operations.prompts import PoolingFields
from poolkit.operations.token_ids import PromptTokenIds

__all__ = ["RerankRequest", "RerankResponse", "RerankResult", "ScoreRequest", "ScoreResponse"]

Texts = Annotated[
    TextsOrModalities,
    BeforeValidator(lambda value: [value] if isinstance(value, str) or is_of_modality(value) else value),
]
"""A text or a prompt of another modality, or a list of them."""


class ScoringFields(PoolingFields):
    """The fields that every scoring request has beside its texts."""

    max_tokens_per_query: int | None = Field(default=None, ge=1, description="Cut each query to so many tokens.")
    max_tokens_per_doc: int | None = Field(default=None, ge=1, description="Cut each document to so many tokens.")
    instruction: str | None = Field(
        default=None, description="What makes a document relevant, for models whose template has a place for it."
    )


class ScoreRequest(ScoringFields):
    """Score queries against documents: one with one, one with each of several, or several pairwise."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "queries": "Where did the cat sit?",
                    "documents": ["A cat sat on the mat.", "Stock prices fell."],
                }
            ]
        },
    )

    queries: Texts = Field(description="A text, an object of another modality, or a list of them.")
    documents: Texts = Field(description="The same.")


class ScoreResponse(BaseModel):
    """One score per pair, in the order of the documents."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    scores: FloatArray = Field(description="Shape (pairs,), float32: higher is more relevant.")
    prompt_token_ids: PromptTokenIds = Field(
        exclude=True, description="Per pair, what ran through the model for it; not sent over HTTP."
    )
    usage: Usage = Field(description="A query that stands in several pairs counts once where it runs once.")


class RerankRequest(ScoringFields):
    """Sort documents by how well they answer a query."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "query": "Where did the cat sit?",
                    "documents": ["Stock prices fell.", "A cat sat on the mat."],
                    "top_n": 1,
                }
            ]
        },
    )

    query: TextOrModality = Field(description="What is searched with: a text, or an object of another modality.")
    documents: TextsOrModalities = Field(description="What is sorted: texts, or objects of another modality.")
    top_n: int | None = Field(default=None, ge=0, description="Return only so many; none and 0 return all.")


class RerankResult(BaseModel):
    """One document and how relevant it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(description="The document's place in the request.")
    relevance_score: float
    document: str | None = Field(description="Its text; null where it is none.")


class RerankResponse(BaseModel):
    """The documents, most relevant first; equals by index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: list[RerankResult]
    usage: Usage
