"""Pooling parameters: how one prompt is tokenized and pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import BaseModel

__all__ = ["InputType", "LateInteractionParams", "PoolingParams", "ResolvedParams"]

InputType: TypeAlias = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class LateInteractionParams:
    """Scores documents inside the engine, so that scores leave it and token vectors do not.

    An engine that no longer has the query, or caches none, returns the document's token vectors instead, and the
    processor scores those.

    Attributes:
        mode: "cache_query" keeps this prompt's token vectors; "score_doc" replaces them by their MaxSim score against
            the cached query. Within a request, queries come after the documents and are run before them.
        query_key: names the cached query. Each request has names of its own, and all of its rounds share them.
        query_uses: "cache_query" alone: the number of documents after which the query is dropped. None keeps it until
            the request ends, for documents of a later round as well.
    """

    mode: Literal["cache_query", "score_doc"]
    query_key: str
    query_uses: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """The tokenization and pooling of one prompt. None means the model's own default.

    Attributes:
        dimensions: keep only the first so many numbers of a vector (Matryoshka models).
        use_activation: apply the task's activation; for embeddings, divide by the L2 norm.
        step_tag_id: answer only the rows at this token (process reward models).
        returned_token_ids: answer only these columns, softmax over them when activated (process reward models).
        truncate_prompt_tokens: keep at most so many tokens, special tokens included; -1 means the model's maximum.
            None refuses a prompt that is too long, or cuts it where the operator set `auto_truncate`.
        truncation_side: which end of a truncated prompt is dropped.
        max_tokens_per_query: keep at most so many tokens of a query: the first text of a pair, or a text of that input
            type. Special tokens do not count.
        max_tokens_per_doc: the same for a document: the second text of a pair, a framed text, or a text of that type.
        add_special_tokens: let the tokenizer add its special tokens to a text.
        prompt_name: which of the model's prompts is put before a text; by default that of the input type (none where
            the model has none for it), or the model's default prompt where no input type is given.
        input_type: whether a text is searched with or searched for, where the model tells these apart.
        parts: which of its further outputs the task's head is asked for, by name; None is all of them. What no prompt
            asks for is not even copied.
        late_interaction: score documents inside the engine. Set by IO processors, not by callers.
        extra: parameters of the task's own head: an instance of `PoolingTask.extra`. None is one that is made without
            arguments; a request that lacks one with required fields is refused.

    Raises TypeError where `extra` cannot be hashed.
    """

    dimensions: int | None = None
    use_activation: bool | None = None
    step_tag_id: int | None = None
    returned_token_ids: tuple[int, ...] | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: Literal["left", "right"] = "right"
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    add_special_tokens: bool = True
    prompt_name: str | None = None
    input_type: InputType | None = None
    parts: tuple[str, ...] | None = None
    late_interaction: LateInteractionParams | None = None
    extra: BaseModel | None = None

    def __post_init__(self) -> None:
        """Take a list of token ids as well: parameters are compared and hashed."""
        if self.returned_token_ids is not None:
            object.__setattr__(self, "returned_token_ids", tuple(self.returned_token_ids))
        if self.extra is not None:
            _check_hash(self.extra)


def _check_hash(extra: BaseModel) -> None:
    try:
        hash(extra)
    except TypeError as error:
        raise TypeError(
            f"extra is a {type(extra).__name__} that cannot be hashed: {error}. Freeze the model, and give its fields "
            "tuples in place of lists."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedParams:
    """`PoolingParams` with every default filled in: request over operator over task over model.

    Made once for each distinct `PoolingParams` of a request. Whatever reads it decides nothing.

    Attributes:
        max_tokens: keep at most so many tokens, special tokens included. None refuses a prompt that is too long.
        truncates: True if the request asks for `max_tokens`; False if the operator does, or nobody.
        truncation_side: which end of a truncated prompt is dropped.
        max_text_tokens: keep at most so many tokens of a text that stands by itself, special tokens not counted.
        max_tokens_per_query: the same for the first text of a pair.
        max_tokens_per_doc: the same for the second text of a pair, and for a templated text.
        add_special_tokens: let the tokenizer add its special tokens to a text.
        prompt: put before a text before it is tokenized; "" for none.
        input_type: what the prompt is, for a model that reads queries and documents differently.
        activates: apply the activation.
        dimensions: keep only the first so many columns; None for all.
        columns: keep only these columns, by index, and apply softmax to them; None for all.
        step_tag_id: keep only the rows at this token; None for all.
        parts: further outputs of the task's head to return, by name; None for all.
        late_interaction: score documents inside the engine.
        extra: parameters of the task's own head: an instance of `PoolingTask.extra`, None where the task has none.
    """

    max_tokens: int | None = None
    truncates: bool = False
    truncation_side: Literal["left", "right"] = "right"
    max_text_tokens: int | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    add_special_tokens: bool = True
    prompt: str = ""
    input_type: InputType = "document"
    activates: bool = False
    dimensions: int | None = None
    columns: tuple[int, ...] | None = None
    step_tag_id: int | None = None
    parts: tuple[str, ...] | None = None
    late_interaction: LateInteractionParams | None = None
    extra: BaseModel | None = None
