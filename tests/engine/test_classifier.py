"""A classifier's logits become scores as the model's files say, unless a task or a request says otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from engines import load_engine, make_task, run
from poolkit.contract import Activation, Output, PoolingParams

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 9, 11], [7], [5, 9, 11, 400, 12], [8, 8, 8]]
SCORES = make_task(Output.LOGITS, Activation.MODEL)


def softmax(rows):
    exp = np.exp(rows)
    return exp / exp.sum(axis=-1, keepdims=True)


def sigmoid(rows):
    return 1 / (1 + np.exp(-rows))


def identity(rows):
    return rows


@pytest.mark.parametrize(
    ("settings", "activation"),
    [
        ({"num_labels": 3}, softmax),
        ({"num_labels": 1}, sigmoid),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, sigmoid),
        ({"num_labels": 1, "problem_type": "regression"}, identity),
        ({"num_labels": 1, "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, identity),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_scores_are_activated_as_the_model_says(checkpoint, settings, activation):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, **settings)
    logits = np.stack(run(load_engine(folder, task=make_task(Output.LOGITS)), PROMPTS))
    engine = load_engine(folder, task=SCORES)
    assert np.allclose(run(engine, PROMPTS), activation(logits), atol=1e-6)
    assert np.allclose(run(engine, PROMPTS, PoolingParams(use_activation=False)), logits, atol=1e-6)


def test_the_scores_of_tokens_are_activated_one_by_one(checkpoint):
    folder = checkpoint("bert", head="ForTokenClassification", sentence_transformers=False, num_labels=5)
    for scores, prompt in zip(
        run(load_engine(folder, task=make_task(Output.TOKEN_LOGITS, Activation.MODEL)), PROMPTS), PROMPTS, strict=True
    ):
        assert scores.shape == (len(prompt), 5)
        assert np.allclose(scores.sum(axis=1), 1, atol=1e-6)
