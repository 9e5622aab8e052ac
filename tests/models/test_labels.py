"""Reading a classifier's labels from its files."""

from __future__ import annotations

import pytest

from checkpoints import make_checkpoint
from poolkit.contract import Activation, Decision, ProblemType
from poolkit.errors import ModelError
from reading import read


def label_activation(info):
    return next((one.value, one.source) for one in info.decisions if one.name == "label activation")


@pytest.fixture
def classifier(checkpoint):
    return checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)


def test_a_model_without_a_classifier_has_no_labels(checkpoint):
    info = read(checkpoint("bert"))
    assert (info.label_names, info.num_labels, info.classifier) == (None, 0, None)


def test_labels_have_the_names_of_the_config(classifier):
    info = read(classifier, hf_overrides={"id2label": {"0": "no", "1": "perhaps", "2": "yes"}})
    assert info.label_names == {0: "no", 1: "perhaps", 2: "yes"}
    assert info.num_labels == 3
    assert info.classifier.problem_type is ProblemType.SINGLE_LABEL


def test_two_labels_without_names_are_what_a_silent_config_means(tmp_path):
    folder = make_checkpoint(tmp_path, "bert", head="ForSequenceClassification", sentence_transformers=False)
    assert read(folder).label_names == {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize(
    ("overrides", "activation", "source"),
    [
        ({}, "softmax", "3 labels, single_label_classification"),
        ({"num_labels": 1}, "sigmoid", "one label, single_label_classification"),
        ({"problem_type": "multi_label_classification"}, "sigmoid", "3 labels, multi_label_classification"),
        ({"problem_type": "regression"}, "identity", "3 labels, regression"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            "sigmoid",
            "config.json sentence_transformers.activation_fn",
        ),
        (
            {"sbert_ce_default_activation_function": "torch.nn.Identity"},
            "identity",
            "config.json sbert_ce_default_activation_function",
        ),
    ],
)
def test_the_activation_of_logits_has_a_source(classifier, overrides, activation, source):
    info = read(classifier, hf_overrides=overrides)
    assert info.label_activation is Activation(activation)
    assert Decision("label activation", activation, source) in info.decisions


def test_a_cross_encoder_saved_by_sentence_transformers_says_its_activation(tmp_path, checkpoint):
    import torch
    from sentence_transformers import CrossEncoder

    plain = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=1)
    CrossEncoder(str(plain), device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(str(tmp_path))
    info = read(tmp_path)
    assert info.outputs[0] == "logits"
    assert info.label_activation is Activation.IDENTITY
    assert label_activation(info)[1] == "config_sentence_transformers.json activation_fn"


@pytest.mark.parametrize("named", ["torch.nn.modules.activation.Tanh", "os.system"])
def test_an_activation_from_outside_the_list_is_refused(classifier, named):
    with pytest.raises(ModelError) as caught:
        read(classifier, hf_overrides={"sentence_transformers": {"activation_fn": named}})
    assert str(caught.value) == (
        f"config.json sentence_transformers.activation_fn of the model in {classifier} is {named!r}, which poolkit "
        "does not run. It runs torch.nn's Identity, Sigmoid, Softmax."
    )


def test_an_unknown_problem_type_is_refused(classifier):
    with pytest.raises(ModelError) as caught:
        read(classifier, hf_overrides={"problem_type": "regresion"})
    assert str(caught.value) == (
        f"{classifier / 'config.json'} has problem_type 'regresion', which poolkit does not know. Did you mean "
        "'regression'? It knows regression, single_label_classification, multi_label_classification."
    )
