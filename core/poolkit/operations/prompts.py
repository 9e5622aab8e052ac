"""The request fields that most operations share: some prompts, and how each is tokenized and pooled."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, InstanceOf, Tag, model_validator
from pydantic.json_schema import SkipJsonSchema

from poolkit.contract import ModalityPrompt, PoolingParams, TextPair
from poolkit.errors import RequestError
from poolkit.operations.modalities import OfModality, is_of_modality
from poolkit.operations.token_ids import RequestTokenIds

if TYPE_CHECKING:
    from poolkit.contract import TokenIds

__all__ = ["PoolingFields", "PromptsRequest"]


def _kind(value: object) -> str | None:
    """Return which of the forms below a value has: told by its first item, so that errors speak of one form."""
    if isinstance(value, np.ndarray):
        return "token ids"
    if isinstance(value, str):
        return "text"
    if is_of_modality(value):
        return "modality"
    if isinstance(value, dict | TextPair):
        return "pair"
    if isinstance(value, list | tuple):
        is_ids = len(value) > 0 and isinstance(value[0], int | float)
        return "token ids" if is_ids else "prompts"
    return None


def _kind_of_one(value: object) -> str | None:
    kind = _kind(value)
    return "token ids" if kind == "prompts" else kind


OnePrompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[RequestTokenIds, Tag("token ids")]
    | Annotated[TextPair, Tag("pair")]
    | Annotated[OfModality, Tag("modality")],
    Discriminator(
        _kind_of_one,
        custom_error_type="prompt_type",
        custom_error_message="Input should be a string, an array of token ids, a pair {first, second}, or an object "
        "of another modality such as {image}",
    ),
]
Input = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[RequestTokenIds, Tag("token ids")]
    | Annotated[TextPair, Tag("pair")]
    | Annotated[OfModality, Tag("modality")]
    | Annotated[list[OnePrompt], Tag("prompts")],
    Discriminator(
        _kind,
        custom_error_type="input_type",
        custom_error_message="Input should be a string, an array of token ids, a pair {first, second}, an object of "
        "another modality such as {image}, or an array of these",
    ),
]


class PoolingFields(BaseModel):
    """The parameters of a request's prompts: as fields, or as whole `PoolingParams`.

    A request adds the fields of `PoolingParams` that matter to it, each under the name that it has there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        description="Keep at most so many tokens of each prompt; -1 is the model's maximum. Default: refuse.",
    )
    truncation_side: Literal["left", "right"] = Field(default="right", description="Which end is dropped.")
    use_activation: bool | None = Field(default=None, description="Normalise vectors, squash logits. Default: yes.")
    pooling_params: SkipJsonSchema[InstanceOf[PoolingParams] | tuple[InstanceOf[PoolingParams], ...] | None] = Field(
        default=None, description="In place of the fields: one for all prompts, or one per prompt. Offline only."
    )

    @model_validator(mode="after")
    def _check_said_once(self) -> PoolingFields:
        doubled = sorted(self._pooling_fields() & self.model_fields_set)
        if self.pooling_params is not None and doubled:
            raise ValueError(f"Give pooling_params or {', '.join(doubled)}, not both.")
        return self

    def params(self, *, prompts: int) -> PoolingParams | tuple[PoolingParams, ...]:
        """Return the parameters that hold for every prompt of this request, or those of each.

        Raises RequestError where there is not one for each of `prompts` prompts.
        """
        if self.pooling_params is None:
            return PoolingParams(**{name: getattr(self, name) for name in self._pooling_fields()})
        if isinstance(self.pooling_params, tuple) and len(self.pooling_params) != prompts:
            raise RequestError(
                f"pooling_params has {len(self.pooling_params)} items for {prompts} prompts. Give one for all of them, "
                "or one per prompt."
            )
        return self.pooling_params

    @classmethod
    @cache
    def _pooling_fields(cls) -> frozenset[str]:
        return POOLING_FIELDS & cls.model_fields.keys()


POOLING_FIELDS = frozenset(PoolingParams.__dataclass_fields__)


class PromptsRequest(PoolingFields):
    """Prompts, and how each of them is tokenized and pooled."""

    input: Input = Field(
        description="A text, the token ids of one, a pair of texts, a prompt of another modality, or a list of these."
    )
    add_special_tokens: bool = Field(default=True, description="Let the tokenizer add its special tokens.")
    prompt_name: str | None = Field(
        default=None, description="Which of the model's own prompts is put before each text. Default: its default."
    )
    input_type: Literal["query", "document"] | None = Field(
        default=None, description="What the texts are, for models that read queries and documents differently."
    )

    def prompts(self) -> list[str | TextPair | ModalityPrompt | TokenIds]:
        """Return `input` as a list of prompts, in order."""
        return list(self.input) if isinstance(self.input, list) else [self.input]
