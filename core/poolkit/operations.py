"""The standard operations: requests and responses that every dialect and `LLM` know by name.

A third-party task that serves a standard operation uses these models, and every client that speaks one of the
operation's dialects can then be pointed at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    SkipValidation,
    Tag,
    WithJsonSchema,
)

from poolkit.contract import PooledOutput, PoolingParams

__all__ = [
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "FloatArray",
    "PoolingRequest",
    "PoolingResponse",
    "Usage",
]

FloatArray = Annotated[
    SkipValidation[NDArray[np.float32]],
    PlainSerializer(lambda array: array.tolist(), when_used="json"),
    WithJsonSchema({"type": "array", "items": {}, "description": "Nested lists of numbers."}),
]
"""A numpy array in a response: stays an array in Python, becomes nested lists in JSON."""

TokenIds = list[Annotated[int, Field(ge=0, strict=True)]]


def _kind(value: object) -> str | None:
    """Return which of the forms below a value has: told by its first item, so that errors speak of one form."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        is_ids = len(value) > 0 and isinstance(value[0], int | float)
        return "token ids" if is_ids else "prompts"
    return None


def _kind_of_one(value: object) -> str | None:
    kind = _kind(value)
    return "token ids" if kind == "prompts" else kind


OnePrompt = Annotated[
    Annotated[str, Tag("text")] | Annotated[TokenIds, Tag("token ids")],
    Discriminator(
        _kind_of_one,
        custom_error_type="prompt_type",
        custom_error_message="Input should be a string or an array of token ids",
    ),
]
Input = Annotated[
    Annotated[str, Tag("text")] | Annotated[TokenIds, Tag("token ids")] | Annotated[list[OnePrompt], Tag("prompts")],
    Discriminator(
        _kind,
        custom_error_type="input_type",
        custom_error_message="Input should be a string, an array of token ids, or an array of these",
    ),
]


class Usage(BaseModel):
    """Tokens that ran through the model, special tokens included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, outputs: Sequence[PooledOutput]) -> Usage:
        """Return the tokens of all prompts together."""
        tokens = sum(len(output.prompt_token_ids) for output in outputs)
        return cls(prompt_tokens=tokens, total_tokens=tokens)


class _PromptsRequest(BaseModel):
    """Prompts, and how each of them is tokenized and pooled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Input = Field(description="A text, the token ids of one, or a list of either.")
    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        description="Keep at most so many tokens of each prompt; -1 is the model's maximum. Default: refuse.",
    )
    truncation_side: Literal["left", "right"] = Field(default="right", description="Which end is dropped.")
    add_special_tokens: bool = Field(default=True, description="Let the tokenizer add its special tokens.")
    dimensions: int | None = Field(default=None, ge=1, description="Length of the vectors (Matryoshka models only).")
    use_activation: bool | None = Field(default=None, description="Normalise vectors, squash logits. Default: yes.")

    def prompts(self) -> list[str | list[int]]:
        """Return `input` as a list of prompts, in order."""
        if isinstance(self.input, str):
            return [self.input]
        prompts = [prompt for prompt in self.input if not isinstance(prompt, int)]
        token_ids = [token_id for token_id in self.input if isinstance(token_id, int)]
        return [token_ids] if token_ids else prompts

    def params(self) -> PoolingParams:
        """Return the parameters that hold for every prompt of this request."""
        return PoolingParams(
            dimensions=self.dimensions,
            use_activation=self.use_activation,
            truncate_prompt_tokens=self.truncate_prompt_tokens,
            truncation_side=self.truncation_side,
            add_special_tokens=self.add_special_tokens,
        )


class EmbeddingsRequest(_PromptsRequest):
    """Embed each prompt as one vector."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]},
    )


class EmbeddingsResponse(BaseModel):
    """One vector per prompt, in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    embeddings: FloatArray = Field(description="Shape (prompts, dim), float32.")
    prompt_token_ids: list[list[int]] = Field(exclude=True, description="Per prompt; not sent over HTTP.")
    usage: Usage


class PoolingRequest(_PromptsRequest):
    """Return what the model pools for each prompt, whatever the served task is."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["A cat sat on the mat."]}]},
    )

    task: str | None = Field(default=None, description="Must be the served task; a check, not a choice.")


class PoolingResponse(BaseModel):
    """What was pooled for each prompt, in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    data: list[FloatArray] = Field(description="Per prompt, float32: (dim,), (labels,), or one of those per token.")
    prompt_token_ids: list[list[int]] = Field(exclude=True, description="Per prompt; not sent over HTTP.")
    usage: Usage
