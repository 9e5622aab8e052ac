"""The records that describe a model: plain data, made once from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from poolkit.config import ModelConfig
from poolkit.contract import Activation, Output

__all__ = ["Decision", "DenseSpec", "ModelInfo", "PoolingMode", "ProblemType"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the start-up report: what was decided, and where that came from."""

    name: str
    value: str
    source: str


class PoolingMode(StrEnum):
    """How token vectors become one vector. The values are sentence-transformers' own."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"
    LAST = "lasttoken"


class ProblemType(StrEnum):
    """What a classifier's logits stand for. The values are transformers' own."""

    REGRESSION = "regression"
    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """A dense layer after pooling: where its weights lie and what is applied to them."""

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str  # dotted path of a torch module, as sentence-transformers writes it; allow-listed when read


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model as its files describe it.

    Attributes:
        name: what the user asked for.
        path: the local folder that holds the files.
        architecture: the first of config.json's `architectures`.
        model_type: config.json's `model_type`.
        outputs: what the model can produce, best first: the order in which tasks are preferred.
        max_model_len: the longest prompt in tokens, special tokens included.
        hidden_size: width of the token vectors.
        embedding_size: width of the sentence vector, after pooling and dense layers.
        vocab_size: token ids are below this.
        position_offset: the position id of a sequence's first token (pad_id + 1 for RoBERTa's family, else 0).
        lowercases: whether texts are lowercased before the tokenizer sees them.
        default_prompt: put before each text before it is tokenized, as sentence-transformers does by default.
        pooling: pooling modes, concatenated in this order.
        dense: dense layers after pooling, in order.
        normalizes: whether the model's own files end in a Normalize module.
        matryoshka_dimensions: the vector lengths the model allows; () for any; None when it is not a Matryoshka model.
        config: what the user asked for, where a request leaves it open.
        label_names: a classifier's labels by index; None for other models.
        problem_type: what a classifier's logits stand for.
        label_activation: what turns a classifier's logits into scores.
        decisions: every resolved value and its source.
    """

    name: str
    path: Path
    architecture: str
    model_type: str
    outputs: tuple[Output, ...]
    max_model_len: int
    hidden_size: int
    embedding_size: int
    vocab_size: int
    position_offset: int = 0
    lowercases: bool = False
    default_prompt: str = ""
    pooling: tuple[PoolingMode, ...] = (PoolingMode.CLS,)
    dense: tuple[DenseSpec, ...] = ()
    normalizes: bool = False
    matryoshka_dimensions: tuple[int, ...] | None = None
    label_names: Mapping[int, str] | None = None
    problem_type: ProblemType | None = None
    label_activation: Activation = Activation.IDENTITY
    config: ModelConfig = field(default_factory=ModelConfig)
    decisions: tuple[Decision, ...] = ()

    @property
    def token_vector_size(self) -> int:
        """Width of the vector of each token, after the layers that a multi-vector model has for them."""
        return self.hidden_size

    @property
    def num_labels(self) -> int:
        """How many labels a classifier has; 0 for other models."""
        return len(self.label_names or ())
