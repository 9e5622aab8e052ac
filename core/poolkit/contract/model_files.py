"""A model's configuration files as readers get them, and the entries of group `poolkit.models` that read them.

The kind of an entry stands in its name, before the dot:

    module.<type>      a `ModuleReader` for a type of module in sentence-transformers' modules.json
    pooling.<mode>     a function of token vectors (tokens, hidden) and their `SegmentArrays`: it returns the vectors of
                       the prompts (prompts, hidden), in float32; torch tensors, all of them
    reranker.<name>    a `RerankerFamily`: rerankers that are recognised by themselves
    family.<name>      a `ModelFamily`: what sets some architectures apart
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from poolkit.config import ModelConfig
from poolkit.contract.model_specs import Expansion, LayerMixSpec, LayerSpec, LogitScore
from poolkit.contract.outputs import Output
from poolkit.contract.params import InputType
from poolkit.errors import ModelError

__all__ = [
    "SHARED",
    "HeadKind",
    "ModelFamily",
    "ModelFiles",
    "Module",
    "ModuleReader",
    "ModuleRecord",
    "PoolingModule",
    "RerankerFamily",
    "TaskModule",
    "read_json",
    "read_object",
]

SHARED = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of a sentence-transformers model.

    Attributes:
        type: its entry's name in the table: the class name for sentence-transformers' own ("Dense"), else the dotted
            path that modules.json has ("my_package.Whitening").
        folder: holds its config.json and weights.
        root: holds modules.json.
        only_for: the input type that it is for; None for all.
    """

    type: str
    folder: Path
    root: Path
    only_for: InputType | None = None

    @property
    def path(self) -> Path:
        """The file with its settings."""
        return self.folder / "config.json"

    def settings(self) -> Mapping[str, object]:
        """Return its config.json.

        Raises ModelError if there is none.
        """
        settings = read_object(self.path)
        if settings is None:
            raise ModelError(f"{self.path} is missing; modules.json names it. Fetch the model again.")
        return settings

    def shared(self) -> Mapping[str, object]:
        """Return config_sentence_transformers.json, which all modules of the model share; {} if there is none."""
        return read_object(self.root / SHARED) or {}

    def whole_number(self, key: str, *, default: int | None = None) -> int:
        """Return a number among its settings.

        Raises ModelError if there is none.
        """
        value = self.settings().get(key, default)
        if not isinstance(value, int):
            raise ModelError(f"{self.path} must have a whole number {key}. Fetch the model again.")
        return value


@dataclass(frozen=True, slots=True)
class PoolingModule:
    """A module that makes one vector of token vectors.

    Attributes:
        modes: their vectors are concatenated in this order.
        includes_prompt: True if a prompt's tokens are pooled like the text's.
    """

    modes: tuple[str, ...]
    includes_prompt: bool = True


@dataclass(frozen=True, slots=True)
class TaskModule:
    """A module whose work a task's head does. The model gives hidden states, and vectors of its own mean nothing.

    Attributes:
        settings: handed to the head, in `ModelInfo.task_modules`.
    """

    settings: object


ModuleRecord: TypeAlias = LayerSpec | LayerMixSpec | PoolingModule | TaskModule | None
"""The step that a module adds; None if it changes nothing when a model runs."""

ModuleReader: TypeAlias = Callable[[Module], ModuleRecord]
"""Reads a module's settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The configuration files of a model, with what the operator says of them.

    Attributes:
        root: the model's folder.
        folder: holds config.json, the tokenizer and the weights. It is that of the Transformer module.
        hf_config: config.json, with the operator's overrides.
        shared: config_sentence_transformers.json.
        transformer: the Transformer module's own settings (sentence_bert_config.json).
        transformer_file: the name of that file; None if there is none.
        modules: those that modules.json lists after the Transformer, routers unfolded.
        default_route: the input type whose route a prompt takes if a request does not say; None if there are no routes.
        is_pylate: True if PyLate saved the model.
        has_modules: True if there is a modules.json.
        config: what the operator asked for.
    """

    root: Path
    folder: Path
    hf_config: Mapping[str, object]
    shared: Mapping[str, object] = field(default_factory=dict)
    transformer: Mapping[str, object] = field(default_factory=dict)
    transformer_file: str | None = None
    modules: tuple[Module, ...] = ()
    default_route: InputType | None = None
    is_pylate: bool = False
    has_modules: bool = False
    config: ModelConfig

    @property
    def architecture(self) -> str:
        """The first of config.json's `architectures`."""
        architectures = self.hf_config.get("architectures")
        return str(architectures[0]) if isinstance(architectures, list) and architectures else ""

    @property
    def model_type(self) -> str:
        """config.json's `model_type`."""
        return str(self.hf_config.get("model_type", ""))

    def read(self, name: str) -> Mapping[str, object]:
        """Return the object in a JSON file beside config.json; {} if there is no such file."""
        return read_object(self.folder / name) or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerFamily:
    """Causal LMs that answer by a token whether a document is relevant, recognised without a word in their files.

    Attributes:
        name: found in the names of their repositories and folders.
        model_type: config.json's.
        logit_score: the tokens whose logits are the score.
        template: the Jinja file of their prompts.
        phrase: stands in their chat template and in no other model's.
        flag: a key of config.json that says so as well; None for none.
    """

    name: re.Pattern[str]
    model_type: str
    logit_score: LogitScore
    template: Path
    phrase: str
    flag: str | None = None


class HeadKind(StrEnum):
    """The head that a checkpoint has on top of its base."""

    SEQUENCE_CLASSIFIER = "sequence_classifier"
    """Logits of a text's labels, by transformers' AutoModelForSequenceClassification."""
    TOKEN_CLASSIFIER = "token_classifier"  # noqa: S105 - a head, not a secret
    """Logits of each token's labels, by transformers' AutoModelForTokenClassification."""
    REWARD = "reward"
    """A score of a text, or of each step of it."""
    CAUSAL_LM = "causal_lm"
    """Logits of the next token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """The peculiarities of some models. A field that is None is read as for all others.

    A model may belong to several families: of each field, the first of them that has one counts. Those of plugins come
    before poolkit's own.

    Attributes:
        matches: tells whether a model belongs to the family.
        config: values that stand in place of those in config.json.
        head: what the checkpoint has on top of its base.
        outputs: what the model can produce, best first.
        pools_itself: True if the model makes its vectors by itself, so that there is nothing to pool or to project.
        pooling: the pooling mode if no file names one.
        position_offset: the position id of a sequence's first token.
        num_labels: how many labels the model's own head has, whatever config.json says.
        step_tag_id: the token after each step of a process reward model.
        modalities: the modalities that it reads beside text, by name: what reads from its files how. The record is
            handed to the modality's reader and to engines in `ModelInfo.modalities`; `str()` of it is told at start-up.
        expansion: how every text is filled up, as it was in training.
        only_queries: True if a text is a query alone, and documents are of another modality.
        adapters: by engine, the dotted path "module:name" of what that engine knows of the family.
    """

    matches: Callable[[ModelFiles], bool]
    config: Callable[[ModelFiles], Mapping[str, object]] | None = None
    head: HeadKind | None = None
    outputs: Callable[[ModelFiles], tuple[Output, ...]] | None = None
    pools_itself: bool = False
    pooling: str | None = None
    position_offset: Callable[[ModelFiles], int] | None = None
    num_labels: int | None = None
    step_tag_id: int | None = None
    modalities: Mapping[str, Callable[[ModelFiles], object]] = field(default_factory=dict)
    expansion: Callable[[ModelFiles], Expansion] | None = None
    only_queries: bool = False
    adapters: Mapping[str, str] = field(default_factory=dict)


def read_json(path: Path) -> object:
    """Return the content of a JSON file, or None if there is no such file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ModelError(f"{path} cannot be read as JSON: {exc}. Repair it, or fetch the model again.") from exc


def read_object(path: Path) -> Mapping[str, object] | None:
    """Return the object in a JSON file, or None if there is no such file."""
    content = read_json(path)
    if content is not None and not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object. Repair it, or fetch the model again.")
    return content
