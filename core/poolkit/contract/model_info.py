"""The records that describe a model: plain data, made once from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from poolkit.config import ModelConfig
from poolkit.contract.model_specs import DenseSpec, ImageSpec, InputType, LayerMixSpec, LayerSpec, MultiVectorSpec
from poolkit.contract.outputs import Activation, Output

__all__ = [
    "AnswerTokens",
    "Decision",
    "ModelInfo",
    "PoolingMode",
    "ProblemType",
    "ScorePrompt",
    "Similarity",
]

REWARD_HEADS = {"ForRewardModel": 1, "ForProcessRewardModel": 2}
"""Architectures that score a text, or each of its steps, and how many labels they have, whatever config.json says.

Their code lies in the models' own repositories: https://huggingface.co/Qwen/Qwen2.5-Math-RM-72B and
https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B.
"""


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


class Similarity(StrEnum):
    """How two answers of a model are compared. The values are sentence-transformers' own."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    MAXSIM = "maxsim"
    MEAN_MAXSIM = "meanmaxsim"


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The tokens with which a causal LM says whether a document is relevant, by name or by id.

    Its score is the logit of `yes` after the prompt, less that of `no` where there is one.
    """

    yes: str | int
    no: str | int | None = None

    def __str__(self) -> str:
        """What the start-up report says of it."""
        return f"the logit of {self.yes!r}" + (f" less that of {self.no!r}" if self.no is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePrompt:
    """The template that a reranker's prompts are made with, and what it is given beside query and document.

    Attributes:
        template: its text, in Jinja.
        source: what it is called in messages.
        variables: the tokenizer's special tokens by name ("bos_token").
        instruction: put into the prompt where a request has none.
        is_chat_template: whether the model's own chat template is used, as sentence-transformers does.
        has_parts: whether that takes the content of a message as a list of parts.
        adds_generation_prompt: whether that ends the prompt where the model's answer begins.
    """

    template: str
    source: str
    variables: Mapping[str, str] = field(default_factory=dict)
    instruction: str | None = None
    is_chat_template: bool = False
    has_parts: bool = False
    adds_generation_prompt: bool = False


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
        prompts: the model's own prompts by name; one is put before a text before it is tokenized.
        default_prompt_name: of the one that is put there where a request does not say; None for none.
        pools_prompt: whether a prompt's tokens are pooled like the text's.
        pooling: pooling modes, concatenated in this order.
        layer_mix: how the base's layers become token vectors; None where those are what the last layer gives.
        token_layers: applied to each token's vector, before pooling, in order.
        layers: applied to the sentence vector, after pooling, in order.
        normalizes: whether the model's own files end in a Normalize module.
        multi_vector: how a multi-vector model reads and answers; None for other models.
        images: how it reads images; None where it reads texts alone.
        similarity: how two answers are compared.
        default_input_type: what a prompt is taken for where a request does not say and the model tells these apart.
        dimensions: length of the vectors unless a request says otherwise; None is all of it.
        matryoshka_dimensions: the vector lengths the model allows; () for any; None when it is not a Matryoshka model.
        config: what the user asked for, where a request leaves it open.
        label_names: a classifier's labels by index; None for other models.
        problem_type: what a classifier's logits stand for.
        label_activation: what turns a classifier's logits into scores.
        step_tag_id: the token whose rows a process reward model answers unless a request says otherwise; None for all.
        answer_tokens: what a causal LM that is a reranker says its score with; None for other models.
        score_prompt: how query and document become one prompt; None where they are a pair of texts.
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
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    pools_prompt: bool = True
    pooling: tuple[PoolingMode, ...] = (PoolingMode.CLS,)
    layer_mix: LayerMixSpec | None = None
    token_layers: tuple[LayerSpec, ...] = ()
    layers: tuple[LayerSpec, ...] = ()
    normalizes: bool = False
    multi_vector: MultiVectorSpec | None = None
    images: ImageSpec | None = None
    similarity: Similarity = Similarity.COSINE
    default_input_type: InputType = "document"
    dimensions: int | None = None
    matryoshka_dimensions: tuple[int, ...] | None = None
    label_names: Mapping[int, str] | None = None
    problem_type: ProblemType | None = None
    label_activation: Activation = Activation.IDENTITY
    step_tag_id: int | None = None
    answer_tokens: AnswerTokens | None = None
    score_prompt: ScorePrompt | None = None
    config: ModelConfig = field(default_factory=ModelConfig)
    decisions: tuple[Decision, ...] = ()

    @property
    def token_vector_size(self) -> int:
        """Width of the vector of each token, after the layers that the model has for them."""
        return next(
            (spec.out_features for spec in reversed(self.token_layers) if isinstance(spec, DenseSpec)), self.hidden_size
        )

    def longest(self, input_type: InputType | None) -> int:
        """Return the longest prompt of an input type in tokens, special tokens included."""
        if self.multi_vector is None:
            return self.max_model_len
        kind = input_type or self.default_input_type
        return self.multi_vector.query_length if kind == "query" else self.multi_vector.document_length

    @property
    def has_reward_head(self) -> bool:
        """Whether its head is that of a reward model, which transformers does not have."""
        return self.architecture.endswith(tuple(REWARD_HEADS))

    @property
    def columns(self) -> tuple[int, ...]:
        """What stands for the columns of its logits: a classifier's labels, or the tokens that the operator named."""
        return tuple(range(self.num_labels)) or self.config.pooler_config.returned_token_ids or ()

    @property
    def num_labels(self) -> int:
        """How many labels a classifier has; 0 for other models."""
        return len(self.label_names or ())
