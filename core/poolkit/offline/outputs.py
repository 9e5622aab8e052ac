"""The results of `LLM`: one object per prompt, in the field's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import TokenIds
from poolkit.operations import Entity, LabelScore

__all__ = [
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "PoolingOutput",
    "PoolingRequestOutput",
    "RequestOutput",
    "ScoringOutput",
    "ScoringRequestOutput",
    "TokenClassificationOutput",
    "TokenClassificationRequestOutput",
]

OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """The vector of one prompt: float32, shape (dim,)."""

    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassificationOutput:
    """The labels of one prompt.

    Attributes:
        label: the one with the highest score.
        labels: those that `top_k` and `threshold` leave, highest score first.
        probs: the score of every label, in the model's order: float32, shape (labels,).
    """

    label: str
    labels: Sequence[LabelScore]
    probs: NDArray[np.float32]

    @property
    def num_classes(self) -> int:
        """The number of the model's labels."""
        return len(self.probs)


@dataclass(frozen=True, slots=True)
class TokenClassificationOutput:
    """The entities of one text, in its order."""

    entities: Sequence[Entity]


@dataclass(frozen=True, slots=True)
class PoolingOutput:
    """The pooled output of one prompt.

    Attributes:
        data: float32, shape (dim,), (labels,), or one of those per token. Where the task's kind of output is one that
            no array says (sparse, or the task's own), what its `OutputKind.to_json` makes of it.
    """

    data: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScoringOutput:
    """The score of one document for one query: higher is more relevant."""

    score: float


@dataclass(frozen=True, slots=True, eq=False)
class RequestOutput(Generic[OutputT]):
    """The answer to one prompt.

    Attributes:
        outputs: what was asked for.
        token_ids: the tokens that ran through the model, special tokens included. (tokens,), int32
    """

    outputs: OutputT
    token_ids: TokenIds

    @property
    def prompt_token_ids(self) -> list[int]:
        """The same as a list, which is made when it is read."""
        token_ids: list[int] = self.token_ids.tolist()
        return token_ids


ClassificationRequestOutput: TypeAlias = RequestOutput[ClassificationOutput]
EmbeddingRequestOutput: TypeAlias = RequestOutput[EmbeddingOutput]
PoolingRequestOutput: TypeAlias = RequestOutput[PoolingOutput]
ScoringRequestOutput: TypeAlias = RequestOutput[ScoringOutput]
TokenClassificationRequestOutput: TypeAlias = RequestOutput[TokenClassificationOutput]
