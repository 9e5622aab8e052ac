"""Outputs: what a model produces for a prompt, and what is applied to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from poolkit.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from poolkit.contract.encoder import TextToken, TokenIds

__all__ = ["Activation", "ItemError", "Outcome", "Output", "PooledOutput"]


class Output(StrEnum):
    """The output that a model produces for each prompt."""

    VECTOR = "vector"
    LOGITS = "logits"
    TOKEN_VECTORS = "token_vectors"  # noqa: S105 - a kind of output, not a secret
    TOKEN_LOGITS = "token_logits"  # noqa: S105 - a kind of output, not a secret
    HIDDEN = "hidden"
    LABEL_LOGITS = "label_logits"
    """A causal LM's logits of the task's `label_tokens`, after a prompt's last token."""


class Activation(StrEnum):
    """The function applied to a head's output, in float32, unless a request turns it off."""

    IDENTITY = "identity"
    NORMALIZE = "normalize"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    MODEL = "model"
    """The activation that the model's files give its labels (`ModelInfo.label_activation`)."""


@dataclass(frozen=True, slots=True)
class PooledOutput:
    """The pooled output of one prompt.

    Attributes:
        data: float32. Shape (dim,) for a vector, (labels,) for logits, (tokens, dim) or (tokens, labels) for
            outputs per token, (values,) for sparse output.
        prompt_token_ids: the token ids that ran through the model, special tokens included. (tokens,), int32
        parts: what else the task's head gave in the same forward pass, by name. float32.
        text_tokens: the tokens with their offsets in the text, if `Prepared.with_text_tokens` asked for them.
        indices: for sparse output, the columns that `data` holds the values of; int32. None for dense output.
        part_indices: the same for those of the `parts` that are sparse, by name.
    """

    data: NDArray[np.float32]
    prompt_token_ids: TokenIds
    parts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    text_tokens: Sequence[TextToken] = ()
    indices: NDArray[np.int32] | None = None
    part_indices: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)


Outcome: TypeAlias = PooledOutput | Exception
"""The result of one prompt: its pooled output, or why there is none."""


@dataclass(frozen=True, slots=True)
class ItemError:
    """A prompt that failed, in an operation that tells failures one by one.

    Attributes:
        index: of the caller's input that the prompt belongs to.
        error: why it failed. A `RequestError` is the caller's fault; the message of any other is no secret either.
    """

    index: int
    error: Exception

    @property
    def message(self) -> str:
        """The reason, for the caller."""
        return str(self.error)

    @property
    def is_client_fault(self) -> bool:
        """True if the caller can mend it."""
        return isinstance(self.error, RequestError)
