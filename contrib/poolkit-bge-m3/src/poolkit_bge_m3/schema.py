"""Request and response: texts in, up to three kinds of embedding of each out."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from poolkit import FloatArray, Usage

__all__ = ["EmbeddingsM3Request", "EmbeddingsM3Response", "M3Embedding"]


class EmbeddingsM3Request(BaseModel):
    """Embed each text in the ways that are asked for."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"input": ["A cat sat on the mat.", "Stock prices fell."], "return_sparse": True},
                {"input": "A cat sat on the mat.", "return_dense": False, "return_multi_vector": True},
            ]
        },
    )

    input: str | list[str] = Field(description="A text, or a list of them.")
    return_dense: bool = Field(default=True, description="Return a vector for the text.")
    return_sparse: bool = Field(default=False, description="Return weights of the text's tokens.")
    return_multi_vector: bool = Field(default=False, description="Return a vector for each token but the first.")
    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        description="Keep at most so many tokens of each text; -1 is the model's maximum. Default: refuse.",
    )

    @property
    def texts(self) -> list[str]:
        """Return `input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    @model_validator(mode="after")
    def _check_something_is_asked(self) -> Self:
        if not (self.return_dense or self.return_sparse or self.return_multi_vector):
            raise ValueError(
                "return_dense, return_sparse and return_multi_vector are all false. Set at least one of them"
            )
        return self


class M3Embedding(BaseModel):
    """The embeddings of one text; null for those that were not asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    dense: FloatArray | None = Field(description="A unit vector. (dim,)")
    sparse: dict[str, float] | None = Field(
        description="The weight of each token id that the text holds, the highest where it holds one twice."
    )
    multi_vector: FloatArray | None = Field(
        description="A unit vector for each token but the first, for late interaction. (tokens - 1, dim)"
    )


class EmbeddingsM3Response(BaseModel):
    """The embeddings of each text, in the order of the texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: list[M3Embedding]
    usage: Usage
