"""Request and response: texts in, a weight for each token that they are about out."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from poolkit import Usage

__all__ = ["IndexedWeights", "Settings", "SparseEmbeddingsRequest", "SparseEmbeddingsResponse", "SparseFormat"]


class Settings(BaseModel):
    """The table `[plugins.poolkit-splade]` of poolkit.toml: what holds where a request leaves it open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_k: int | None = Field(
        default=None,
        ge=1,
        description="Keep at most so many weights of a text, the highest. Default: the model's max_active_dims.",
    )
    threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Drop weights that are not above it.")


class SparseFormat(StrEnum):
    """The form in which a text's weights are written."""

    TOKENS = "tokens"
    INDICES = "indices"


class SparseEmbeddingsRequest(BaseModel):
    """Embed each text as weights of tokens."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"input": ["A cat sat on the mat.", "Stock prices fell."], "top_k": 8},
                {"input": "A cat sat on the mat.", "format": "indices", "threshold": 0.1},
            ]
        },
    )

    input: str | list[str] = Field(description="A text, or a list of them.")
    format: SparseFormat = Field(
        default=SparseFormat.TOKENS,
        description="Per text: 'tokens' is an object of weights by token, the highest first; 'indices' is token ids, "
        "ascending, and their weights, as vector databases take them.",
    )
    top_k: int | None = Field(default=None, ge=1, description="Keep at most so many weights of each text, the highest.")
    threshold: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Drop weights that are not above it."
    )
    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        description="Keep at most so many tokens of each text; -1 is the model's maximum. Default: refuse.",
    )

    @property
    def texts(self) -> list[str]:
        """Return `input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class IndexedWeights(BaseModel):
    """The weights of one text, by token id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    indices: list[int] = Field(description="Token ids, ascending.")
    values: list[float] = Field(description="The weight of each.")


class SparseEmbeddingsResponse(BaseModel):
    """The weights of each text, in the order of the texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embeddings: list[dict[str, float]] | list[IndexedWeights] = Field(
        description="Per text: weights by token, or token ids and weights, as `format` asks."
    )
    usage: Usage
