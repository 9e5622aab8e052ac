"""The operation `token_classify`: which stretches of a text are an entity, as transformers' pipeline finds them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from poolkit.operations.answers import Usage
from poolkit.operations.prompts import PromptsRequest
from poolkit.operations.token_ids import PromptTokenIds

__all__ = ["AggregationStrategy", "Entity", "TokenClassification", "TokenClassifyRequest", "TokenClassifyResponse"]


class AggregationStrategy(StrEnum):
    """A way to group tokens into entities. The values are those of transformers' pipeline "token-classification"."""

    NONE = "none"
    """Each token with a label is an entity."""
    SIMPLE = "simple"
    """Neighbouring tokens of one label are an entity; a B- label begins a new one."""
    FIRST = "first"
    """The same with words in place of tokens: a word has the label of its first token."""
    AVERAGE = "average"
    """A word has the label whose mean score over its tokens is the highest."""
    MAX = "max"
    """A word has the label of its token with the highest score."""


class TokenClassifyRequest(PromptsRequest):
    """Find the entities in each text."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["Ada was born in London."], "aggregation_strategy": "simple"}]},
    )

    aggregation_strategy: AggregationStrategy = Field(
        default=AggregationStrategy.NONE, description="How tokens become entities, as transformers' pipeline has it."
    )


OF_ONE_STRATEGY = ("entity", "index", "entity_group")


class Entity(BaseModel):
    """A stretch of a text with a label: a token where tokens are not put together, else a group of them.

    A token has `entity`, its label, and `index`, its place among the prompt's tokens. A group has `entity_group`, the
    label without its B- or I-. JSON holds those that there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    entity: str | None = None
    index: int | None = None
    entity_group: str | None = None
    score: float
    word: str = Field(description="What the tokens read, as the vocabulary writes a token, and the decoder a group.")
    start: int | None = Field(description="The first character in the text; null where the tokenizer does not say.")
    end: int | None = Field(description="One past the last character.")

    @model_serializer(mode="wrap")
    def _leave_out_other_strategies(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = handler(self)
        return {name: value for name, value in fields.items() if value is not None or name not in OF_ONE_STRATEGY}


class TokenClassification(BaseModel):
    """The entities of one text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entities: list[Entity] = Field(description="In the order of the text.")


class TokenClassifyResponse(BaseModel):
    """The entities of each text, in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    data: list[TokenClassification]
    prompt_token_ids: PromptTokenIds
    usage: Usage
