"""A model as its files describe it: one record for each concern, made once, before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poolkit.config import ModelConfig
from poolkit.contract.model_files import HeadKind, ModelFamily
from poolkit.contract.model_specs import (
    ClassifierSpec,
    MultiVectorSpec,
    PoolingSpec,
    RerankerSpec,
    StepSpec,
    TextSpec,
    VectorSpec,
)
from poolkit.contract.outputs import Activation, Output
from poolkit.contract.params import InputType

__all__ = ["Decision", "ModelInfo"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the start-up report: what was decided, and where that came from.

    Attributes:
        name: what it is about.
        value: what holds.
        source: the file, setting or rule that says so.
        outputs: the outputs that it matters to: it is left out of the report of other tasks. None for all.
    """

    name: str
    value: str
    source: str
    outputs: frozenset[Output] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model as its files describe it.

    The properties are short names for what plugins read most.

    Attributes:
        name: what the user asked for.
        path: the local folder that holds the files.
        architecture: the first of config.json's `architectures`.
        model_type: config.json's `model_type`.
        outputs: what the model can produce, best first: the order in which tasks are preferred.
        hidden_size: width of the token vectors that the backbone gives.
        text: how it reads texts.
        vector: the vector of a text.
        pooling: how token vectors become the vector of a text.
        head: what the checkpoint has on top of its base; None if a Pooling module takes its place, or no family says.
        classifier: labels, and what its logits stand for; None if it is no classifier.
        reranker: how a query and a document become one score.
        steps: how a process reward model scores the steps of a text.
        multi_vector: how a multi-vector model reads and answers; None for other models.
        modalities: the modalities that it reads beside text, by name, with what its files say of each.
        task_modules: what plugins' readers made of modules whose work a task's own head does, by the module's type.
        families: those it belongs to, for engines that treat them apart.
        unsupported: why the model cannot give an output that it would give otherwise.
        config: what the operator asked for. It decides where a request leaves something open.
        decisions: every resolved value and its source.
    """

    name: str
    path: Path
    architecture: str
    model_type: str
    outputs: tuple[Output, ...]
    hidden_size: int
    text: TextSpec
    vector: VectorSpec
    pooling: PoolingSpec = field(default_factory=PoolingSpec)
    head: HeadKind | None = None
    classifier: ClassifierSpec | None = None
    reranker: RerankerSpec = field(default_factory=RerankerSpec)
    steps: StepSpec = field(default_factory=StepSpec)
    multi_vector: MultiVectorSpec | None = None
    modalities: Mapping[str, object] = field(default_factory=dict)
    task_modules: Mapping[str, object] = field(default_factory=dict)
    families: tuple[ModelFamily, ...] = ()
    unsupported: Mapping[Output, str] = field(default_factory=dict)
    config: ModelConfig = field(default_factory=ModelConfig)
    decisions: tuple[Decision, ...] = ()

    @property
    def max_model_len(self) -> int:
        """The longest prompt in tokens, special tokens included."""
        return self.text.max_model_len

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return self.text.vocab_size

    @property
    def embedding_size(self) -> int:
        """Width of the vector of a text, after pooling and layers."""
        return self.vector.size

    @property
    def token_vector_size(self) -> int:
        """Width of the vector of each token, after the layers that the model has for them."""
        widths = (spec.out_features for spec in reversed(self.pooling.token_layers))
        return next((width for width in widths if width is not None), self.hidden_size)

    def longest(self, input_type: InputType | None) -> int:
        """Return the longest prompt of an input type in tokens, special tokens included."""
        if self.multi_vector is None:
            return self.text.max_model_len
        kind = input_type or self.text.default_input_type
        return self.multi_vector.query_length if kind == "query" else self.multi_vector.document_length

    @property
    def label_names(self) -> Mapping[int, str] | None:
        """A classifier's labels by index; None for other models."""
        return self.classifier.label_names if self.classifier is not None else None

    @property
    def num_labels(self) -> int:
        """The number of a classifier's labels; 0 for other models."""
        return len(self.label_names or ())

    @property
    def label_activation(self) -> Activation:
        """The activation that turns its logits into scores."""
        return self.classifier.activation if self.classifier is not None else self.steps.activation

    @property
    def columns(self) -> tuple[int, ...]:
        """The names of its logits' columns: a classifier's labels, or the tokens that the operator named."""
        return tuple(range(self.num_labels)) or self.config.pooler_config.returned_token_ids or ()
