"""What `LLM` returns: one object per prompt, in the field's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["EmbeddingOutput", "EmbeddingRequestOutput", "PoolingOutput", "PoolingRequestOutput", "RequestOutput"]

OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """The vector of one prompt: float32, shape (dim,)."""

    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PoolingOutput:
    """What was pooled for one prompt: float32, shape (dim,), (labels,), or one of those per token."""

    data: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RequestOutput(Generic[OutputT]):
    """The answer to one prompt.

    Attributes:
        outputs: what was asked for.
        prompt_token_ids: the tokens that ran through the model, special tokens included.
    """

    outputs: OutputT
    prompt_token_ids: Sequence[int]


EmbeddingRequestOutput: TypeAlias = RequestOutput[EmbeddingOutput]
PoolingRequestOutput: TypeAlias = RequestOutput[PoolingOutput]
