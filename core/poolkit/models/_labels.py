"""What a classifier's files say of its labels: their names, the kind of problem, and the activation for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from poolkit.contract import Activation
from poolkit.contract.model_info import REWARD_HEADS, Decision
from poolkit.contract.model_specs import ClassifierSpec, ProblemType
from poolkit.errors import ModelError, did_you_mean

__all__ = ["read_labels"]

CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", *REWARD_HEADS)

ACTIVATIONS = {"Identity": Activation.IDENTITY, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}
"""Classes of torch.nn that a cross-encoder's files may name. Nothing is imported by a name from a repository."""

ONE_LABEL: Mapping[int, str] = {0: "LABEL_0"}
DEFAULT_LABELS = 2
"""What transformers takes where config.json says nothing, since it leaves two unnamed labels out."""


def read_labels(
    hf: Mapping[str, object],
    architecture: str,
    *,
    path: Path,
    cross_encoder: Mapping[str, object],
    answers_by_token: bool,
) -> tuple[ClassifierSpec, Decision] | None:
    """Return what config.json says of the labels, and why; None if the model is no classifier.

    Args:
        hf: config.json with the user's overrides.
        architecture: the first of its `architectures`.
        path: where config.json lies, for the messages.
        cross_encoder: config_sentence_transformers.json; since sentence-transformers 5.4 it names the activation.
        answers_by_token: whether the model is a reranker that answers with a token: one label, whatever config.json
            says.

    Raises ModelError where the problem type or the activation is unknown.
    """
    if answers_by_token:
        names, problem_type = ONE_LABEL, ProblemType.SINGLE_LABEL
    elif architecture.endswith(CLASSIFIERS):
        names, problem_type = _names(hf, architecture), _problem_type(hf, path)
    else:
        return None
    saved = hf.get("sentence_transformers")
    for source, settings, key in (
        ("config.json sentence_transformers.activation_fn", saved, "activation_fn"),
        ("config.json sbert_ce_default_activation_function", hf, "sbert_ce_default_activation_function"),
        ("config_sentence_transformers.json activation_fn", cross_encoder, "activation_fn"),
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
    return spec, Decision("label activation", activation, source)


def _names(hf: Mapping[str, object], architecture: str) -> Mapping[int, str]:
    named = hf.get("id2label")
    names = {int(index): str(name) for index, name in named.items()} if isinstance(named, dict) else {}
    of_rewards = (labels for suffix, labels in REWARD_HEADS.items() if architecture.endswith(suffix))
    count = next(of_rewards, hf.get("num_labels"))
    if not isinstance(count, int):
        count = len(names) or DEFAULT_LABELS
    if len(names) != count:
        return {index: f"LABEL_{index}" for index in range(count)}
    return names


def _problem_type(hf: Mapping[str, object], path: Path) -> ProblemType:
    saved = hf.get("problem_type")
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
