"""What a model can be given, and how each of it is tokenized and pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, TypeAlias

__all__ = [
    "FramedText",
    "ImagePrompt",
    "KeepQuery",
    "PoolingParams",
    "Prompt",
    "ScoreDocument",
    "TextPair",
    "TypedTokens",
]


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that the model reads together, with its own special tokens around and between them."""

    first: str
    second: str


@dataclass(frozen=True, slots=True)
class TypedTokens:
    """A prompt that has been tokenized, where the token ids alone do not say all that matters.

    Attributes:
        token_ids: special tokens included.
        token_type_ids: one for each token id: 0 for the first text of a pair, 1 for the second, as the tokenizer has
            it. None where all are 0.
        unpooled: how many tokens at the start are left out of pooling: a prompt of the model's that it does not pool.
    """

    token_ids: Sequence[int]
    token_type_ids: Sequence[int] | None = None
    unpooled: int = 0


@dataclass(frozen=True, slots=True)
class FramedText:
    """A text inside a frame: it is tokenized together with what stands around it, and alone gives way when it is cut.

    Whoever frames a text says all that the model reads: neither a prompt of the model's nor special tokens are added.
    """

    before: str
    text: str
    after: str


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An image, for a model that reads images.

    Attributes:
        data: what an image file holds: PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF.
    """

    data: bytes = field(repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the image in a file. Raises OSError where the file cannot be read."""
        return cls(Path(path).read_bytes())


Prompt: TypeAlias = str | TextPair | FramedText | ImagePrompt | TypedTokens | Sequence[int]
"""One input to the model: a text, a pair of texts, a text in its frame, the token ids of any of these, or an image."""


@dataclass(frozen=True, slots=True)
class KeepQuery:
    """Has the engine keep a query's token vectors under `key`, until so many documents were scored against them.

    Among the prompts of a request such queries stand last, and run first.
    """

    key: str
    uses: int


@dataclass(frozen=True, slots=True)
class ScoreDocument:
    """Has the engine answer a document's MaxSim score against the query kept under `key`, in place of its vectors.

    An engine that has no such query, or keeps none, answers the document's token vectors: whoever asked scores them.
    """

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """How one prompt is tokenized and pooled. None means the model's own default.

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
        late_interaction: score documents next to the model; see `KeepQuery`. Set by IO processors, not by callers.
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
    input_type: Literal["query", "document"] | None = None
    parts: tuple[str, ...] | None = None
    late_interaction: KeepQuery | ScoreDocument | None = None

    def __post_init__(self) -> None:
        """Take a list of token ids as well: parameters are compared and hashed."""
        if self.returned_token_ids is not None:
            object.__setattr__(self, "returned_token_ids", tuple(self.returned_token_ids))
