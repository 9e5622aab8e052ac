"""Reads what a model's head is: the labels of a classifier, the steps of a reward model, and so what it can produce."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from poolkit.contract import Activation, Output
from poolkit.contract.model_files import HeadKind, ModelFamily, ModelFiles
from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import ClassifierSpec, ProblemType, StepSpec
from poolkit.errors import ModelError, did_you_mean
from poolkit.models.families import EVERY_MODELS_OUTPUTS

__all__ = ["list_outputs", "read_classifier", "read_steps"]

SCORES = frozenset((Output.LOGITS, Output.TOKEN_LOGITS))

CLASSIFIERS = (HeadKind.SEQUENCE_CLASSIFIER, HeadKind.TOKEN_CLASSIFIER)

ACTIVATIONS = {"Identity": Activation.IDENTITY, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}
"""Classes of torch.nn that a cross-encoder's files may name. Nothing is imported by a name from a repository."""

ONE_LABEL: Mapping[int, str] = {0: "LABEL_0"}
DEFAULT_LABELS = 2
"""The number that transformers takes where config.json says nothing, since it leaves two unnamed labels out."""


def read_classifier(
    files: ModelFiles, families: Iterable[ModelFamily], *, head: HeadKind | None, answers_by_token: bool
) -> tuple[ClassifierSpec | None, tuple[Decision, ...]]:
    """Return what config.json says of the labels, and why; None if the model is no classifier.

    Args:
        files: the model's. Since sentence-transformers 5.4 config_sentence_transformers.json names the activation.
        families: those it belongs to.
        head: what the checkpoint has on top of its base.
        answers_by_token: True if the model is a reranker that answers with a token: one label, whatever config.json
            says.

    Raises ModelError where the problem type or the activation is unknown.
    """
    hf_config, path = files.hf_config, files.folder / "config.json"
    own = next((family.num_labels for family in families if family.num_labels is not None), None)
    if answers_by_token:
        names, problem_type = ONE_LABEL, ProblemType.SINGLE_LABEL
    elif own is not None or head in CLASSIFIERS:
        names, problem_type = _names(hf_config, own), _problem_type(hf_config, path)
    else:
        return None, ()
    for source, settings, key in (
        ("config.json sentence_transformers.activation_fn", hf_config.get("sentence_transformers"), "activation_fn"),
        ("config.json sbert_ce_default_activation_function", hf_config, "sbert_ce_default_activation_function"),
        ("config_sentence_transformers.json activation_fn", files.shared, "activation_fn"),
    ):
        named = settings.get(key) if isinstance(settings, Mapping) else None
        if named is not None:
            activation = _activation(str(named), source, path)
            break
    else:
        activation = {
            ProblemType.REGRESSION: Activation.IDENTITY,
            ProblemType.SINGLE_LABEL: Activation.SOFTMAX if len(names) > 1 else Activation.SIGMOID,
            ProblemType.MULTI_LABEL: Activation.SIGMOID,
        }[problem_type]
        source = f"{len(names)} labels, {problem_type}" if len(names) > 1 else f"one label, {problem_type}"
    spec = ClassifierSpec(label_names=names, problem_type=problem_type, activation=activation)
    return spec, (Decision("label activation", activation, source, SCORES),)


def read_steps(
    files: ModelFiles,
    families: Iterable[ModelFamily],
    *,
    head: HeadKind | None,
    labels: int | None,
    vocab_size: int,
) -> tuple[StepSpec, tuple[Decision, ...]]:
    """Return how the steps of a text are scored, and why.

    Args:
        files: the model's.
        families: those it belongs to.
        head: what the checkpoint has on top of its base.
        labels: how many a classifier has; None for other models.
        vocab_size: token ids are below this.

    Raises ModelError where the operator names a token or a column that the model does not have, or names none of a
    language model's columns.
    """
    pooler, name = files.config.pooler_config, files.config.model
    columns = pooler.returned_token_ids
    tag, source = pooler.step_tag_id, "pooler_config.step_tag_id"
    own = next((family.step_tag_id for family in families if family.step_tag_id is not None), None)
    if tag is None and own is not None and own < vocab_size:
        tag, source = own, f"the architecture, {files.architecture}"
    known = vocab_size if labels is None else labels
    for key, value, end in [
        ("step_tag_id", tag, vocab_size),
        *(("returned_token_ids", column, known) for column in columns or ()),
    ]:
        if value is not None and not 0 <= value < end:
            raise ModelError(f"pooler_config.{key} has {value}; {name} has 0 to {end - 1} there.")
    if pooler.pooling_type == "STEP" and head is HeadKind.CAUSAL_LM and columns is None:
        raise ModelError(
            f"pooler_config.pooling_type is 'STEP', and {name} is a language model. Say in "
            "pooler_config.returned_token_ids which tokens' logits score a step."
        )
    decisions = []
    if tag is not None:
        decisions.append(Decision("steps", f"the rows at token {tag}", source, SCORES))
    if columns is not None:
        listed = ", ".join(map(str, columns))
        decisions.append(Decision("step columns", listed, "pooler_config.returned_token_ids", SCORES))
    activation = Activation.SOFTMAX if pooler.pooling_type == "STEP" else Activation.IDENTITY
    return StepSpec(tag_id=tag, activation=activation), tuple(decisions)


def list_outputs(
    files: ModelFiles,
    families: Iterable[ModelFamily],
    *,
    answers_by_token: bool,
    is_multi_vector: bool,
    gives_vectors: bool,
    head: HeadKind | None,
    has_head: bool,
) -> tuple[Output, ...]:
    """Return what the model can produce, best first.

    Args:
        files: the model's.
        families: those it belongs to.
        answers_by_token: True if the model is a reranker that answers with a token.
        is_multi_vector: True if each token has a vector.
        gives_vectors: False if a module is listed whose work is not the model's own.
        head: what the checkpoint has on top of its base.
        has_head: False if a Pooling module takes what the base gives: no head is left then.
    """
    if answers_by_token:
        return (Output.LOGITS, *EVERY_MODELS_OUTPUTS, Output.LABEL_LOGITS)
    if not gives_vectors:
        return (Output.HIDDEN,)
    if is_multi_vector:
        return (Output.TOKEN_VECTORS, Output.HIDDEN)
    own = next((family.outputs for family in families if family.outputs is not None), None) if has_head else None
    if own is not None:
        return own(files)
    pooling_type = files.config.pooler_config.pooling_type
    of_tokens = pooling_type in ("ALL", "STEP")
    every = EVERY_MODELS_OUTPUTS[1:] if of_tokens else EVERY_MODELS_OUTPUTS
    match head if has_head else None:
        case HeadKind.SEQUENCE_CLASSIFIER:
            return (Output.LOGITS, *every)
        case HeadKind.TOKEN_CLASSIFIER:
            return (Output.TOKEN_LOGITS, *every)
        case HeadKind.CAUSAL_LM:
            return (Output.TOKEN_LOGITS, *every) if pooling_type == "STEP" else (*every, Output.LABEL_LOGITS)
    return every


def _names(hf_config: Mapping[str, object], count: object) -> Mapping[int, str]:
    named = hf_config.get("id2label")
    names = {int(index): str(name) for index, name in named.items()} if isinstance(named, dict) else {}
    count = hf_config.get("num_labels") if count is None else count
    if not isinstance(count, int):
        count = len(names) or DEFAULT_LABELS
    if len(names) != count:
        return {index: f"LABEL_{index}" for index in range(count)}
    return names


def _problem_type(hf_config: Mapping[str, object], path: Path) -> ProblemType:
    saved = hf_config.get("problem_type")
    if saved is None:
        # As transformers' text-classification pipeline takes it.
        return ProblemType.SINGLE_LABEL
    known = [kind.value for kind in ProblemType]
    if saved not in known:
        raise ModelError(
            f"{path} has problem_type {saved!r}, which poolkit does not know.{did_you_mean(str(saved), known)} "
            f"It knows {', '.join(known)}."
        )
    return ProblemType(str(saved))


def _activation(named: str, source: str, path: Path) -> Activation:
    match = re.fullmatch(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)", named)
    if match is None or match[1] not in ACTIVATIONS:
        raise ModelError(
            f"{source} of the model in {path.parent} is {named!r}, which poolkit does not run. It runs torch.nn's "
            f"{', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[match[1]]
