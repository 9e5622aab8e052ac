"""The parts of a `ModelInfo`: one record for each concern of a model, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from poolkit.contract.outputs import Activation
from poolkit.contract.params import InputType

__all__ = [
    "ClassifierSpec",
    "DenseSpec",
    "Expansion",
    "LayerMixSpec",
    "LayerNormSpec",
    "LayerSpec",
    "LogitScore",
    "MultiVectorSpec",
    "NormalizeSpec",
    "PoolingMode",
    "PoolingSpec",
    "ProblemType",
    "RerankerSpec",
    "ScorePrompt",
    "Similarity",
    "StepSpec",
    "TextSpec",
    "VectorSpec",
]


class PoolingMode(StrEnum):
    """A way to make one vector of token vectors. The values are sentence-transformers' own."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"
    LAST = "lasttoken"


class ProblemType(StrEnum):
    """The meaning of a classifier's logits. The values are transformers' own."""

    REGRESSION = "regression"
    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"


class Similarity(StrEnum):
    """A way to compare two answers of a model. The values are sentence-transformers' own."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    MAXSIM = "maxsim"
    MEAN_MAXSIM = "meanmaxsim"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """The tokenization of a model's texts.

    Attributes:
        max_model_len: the longest prompt in tokens, special tokens included.
        vocab_size: token ids are below this.
        position_offset: the position id of a sequence's first token (pad_id + 1 for RoBERTa's family, else 0).
        lowercases: True if texts are lowercased before the tokenizer sees them.
        prompts: the model's own prompts by name; one is put before a text before it is tokenized.
        default_prompt_name: of the one that is put there if a request names none; None for none.
        default_input_type: what a prompt is taken for if a request does not say and the model tells these apart.
        expansion: how every text is filled up, as it was in training; None where none is.
        only_queries: True if a text is a query alone, and documents are of another modality.
    """

    max_model_len: int
    vocab_size: int
    position_offset: int = 0
    lowercases: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    default_input_type: InputType = "document"
    expansion: Expansion | None = None
    only_queries: bool = False


class LayerSpec(Protocol):
    """One step from hidden states to vectors, row by row. `str()` of it is what the start-up report says."""

    @property
    def folder(self) -> Path:
        """Holds the weights."""
        ...

    @property
    def only_for(self) -> InputType | None:
        """The input type whose rows it takes; the others pass by. None for all."""
        ...

    @property
    def in_features(self) -> int | None:
        """Width of the rows it takes; None for any."""
        ...

    @property
    def out_features(self) -> int | None:
        """Width of the rows it gives; None for that of those it takes."""
        ...

    @property
    def load(self) -> str:
        """The dotted path "module:function" of what loads its weights, imported when the model is loaded.

        The function is given the spec and `device`, as torch names it, and returns a function from rows to rows:
        torch tensors on that device, in float32. (rows, in_features) -> (rows, out_features)
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSpec:
    """A dense layer: where its weights lie and what is applied to what it gives.

    Attributes:
        folder: holds the weights.
        in_features: width of the rows it takes.
        out_features: width of the rows it gives.
        bias: whether it has one.
        activation: a class of torch.nn; allow-listed when read.
        has_residual: whether the row it takes is added to the row it gives, by a matrix where their widths differ.
        only_for: the input type whose rows it takes; the others pass by. None for all.
    """

    load: ClassVar[str] = "poolkit.engine.poolers.layers:load_dense"

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    has_residual: bool = False
    only_for: InputType | None = None

    def __str__(self) -> str:
        """Return the start-up report's words for it."""
        residual = ", added to what it takes" if self.has_residual else ""
        return f"{self.in_features} to {self.out_features}, {self.activation}{residual}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNormSpec:
    """A LayerNorm with weights of its own. See `DenseSpec` for what the names stand for."""

    load: ClassVar[str] = "poolkit.engine.poolers.layers:load_layer_norm"

    folder: Path
    size: int
    only_for: InputType | None = None

    @property
    def in_features(self) -> int:
        """Width of the rows it takes."""
        return self.size

    @property
    def out_features(self) -> int:
        """Width of the rows it gives."""
        return self.size

    def __str__(self) -> str:
        """Return the start-up report's words for it."""
        return f"LayerNorm of {self.size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeSpec:
    """Rows are divided by their L2 norm, before further layers. See `DenseSpec` for what `only_for` stands for."""

    load: ClassVar[str] = "poolkit.engine.poolers.layers:load_normalize"

    folder: Path
    only_for: InputType | None = None

    @property
    def in_features(self) -> int | None:
        """None: it takes rows of any width."""
        return None

    @property
    def out_features(self) -> int | None:
        """None: the rows keep their width."""
        return None

    def __str__(self) -> str:
        """Return the start-up report's words for it."""
        return "Normalize"


@dataclass(frozen=True, slots=True)
class LayerMixSpec:
    """Token vectors are a weighted mean over the base's layers, from `first` on (0: the embeddings).

    `folder` holds the weights.
    """

    folder: Path
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingSpec:
    """The pooling of token vectors to the vector of a text.

    Attributes:
        layer_mix: how the backbone's layers become token vectors; None to take the last layer's.
        token_layers: applied to each token's vector, before pooling, in order.
        modes: `PoolingMode`s or those of a plugin; their vectors are concatenated in this order.
        includes_prompt: True if a prompt's tokens are pooled like the text's.
        layers: applied to the vector of the text, after pooling, in order.
        normalizes: True if the model's own files end in a Normalize module.
    """

    layer_mix: LayerMixSpec | None = None
    token_layers: tuple[LayerSpec, ...] = ()
    modes: tuple[str, ...] = (PoolingMode.CLS,)
    includes_prompt: bool = True
    layers: tuple[LayerSpec, ...] = ()
    normalizes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpec:
    """The vector of a text.

    Attributes:
        size: its width, after pooling and layers.
        similarity: how two of them are compared; of a multi-vector model, two lists of token vectors.
        dimensions: the width it is cut to unless a request says otherwise; None for all of it.
        matryoshka_dimensions: the widths the model allows; () for any; None if it is not a Matryoshka model.
    """

    size: int
    similarity: Similarity = Similarity.COSINE
    dimensions: int | None = None
    matryoshka_dimensions: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSpec:
    """The labels of a classifier.

    Attributes:
        label_names: the labels by index.
        activation: turns its logits into scores.
        problem_type: the meaning of its logits.
    """

    label_names: Mapping[int, str]
    activation: Activation
    problem_type: ProblemType = ProblemType.SINGLE_LABEL


@dataclass(frozen=True, slots=True)
class LogitScore:
    """The tokens by which a causal LM says that a document is relevant, by name or by id.

    Its score is the logit of `true_token` after the prompt, less that of `false_token` if there is one.
    """

    true_token: str | int
    false_token: str | int | None = None

    def __str__(self) -> str:
        """Return the start-up report's words for it."""
        less = f" less that of {self.false_token!r}" if self.false_token is not None else ""
        return f"the logit of {self.true_token!r}{less}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePrompt:
    """The template of a reranker's prompts, with its variables beside query and document.

    Attributes:
        template: its text, in Jinja.
        source: what it is called in messages.
        variables: the tokenizer's special tokens by name ("bos_token").
        instruction: put into the prompt if a request has none.
        is_chat_template: True if it is the model's own chat template, as sentence-transformers does.
        has_parts: True if that takes the content of a message as a list of parts.
        adds_generation_prompt: True if that ends the prompt where the model's answer begins.
    """

    template: str
    source: str
    variables: Mapping[str, str] = field(default_factory=dict)
    instruction: str | None = None
    is_chat_template: bool = False
    has_parts: bool = False
    adds_generation_prompt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerSpec:
    """The scoring of a query and a document by a model that reads both.

    Attributes:
        logit_score: the tokens that a causal LM says its score with; None for other models.
        prompt: how query and document become one prompt; None if they are a pair of texts.
    """

    logit_score: LogitScore | None = None
    prompt: ScorePrompt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """The steps of a text that a process reward model scores.

    Attributes:
        tag_id: the token whose rows it answers unless a request says otherwise; None for all rows.
        activation: turns the chosen columns of a language model's logits into scores.
    """

    tag_id: int | None = None
    activation: Activation = Activation.IDENTITY


@dataclass(frozen=True, slots=True)
class Expansion:
    """The expansion of short texts: a multi-vector model's queries, where each filler has a vector of its own.

    Attributes:
        length: of a text, once it is filled up.
        token: what they are filled up with.
        attends: whether the text's own tokens see the fillers.
        is_fixed: whether no text may be longer than `length`.
        side: where the fillers stand.
    """

    length: int
    token: str
    attends: bool
    is_fixed: bool
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiVectorSpec:
    """The queries and documents of a multi-vector model (ColBERT and the like), and the vectors it gives for them.

    Attributes:
        query_length: the longest query in tokens, special tokens and marker included.
        document_length: the longest document, likewise.
        expansion: how short queries are filled up; None where they are not.
        markers: put before texts by the model's prompts: each is one token, whatever the tokenizer's own rules make
            of it in a text.
        skiplist: tokens whose vectors are not answered.
        skips_in: the input types that the skiplist holds for.
        kept_token_ids: the only tokens whose vectors a document answers; () for all.
    """

    query_length: int
    document_length: int
    expansion: Expansion | None = None
    markers: tuple[str, ...] = ()
    skiplist: tuple[str, ...] = ()
    skips_in: tuple[str, ...] = ("document",)
    kept_token_ids: tuple[int, ...] = ()
