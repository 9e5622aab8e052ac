"""Classification gives what transformers' pipeline "text-classification" gives, and lists the labels that are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import transformers

from checkpoints import real_texts
from closeness import assert_close
from poolkit import LLM, PoolerConfig, PoolingParams, TextPair, create_app
from poolkit.errors import BatchError, RequestError
from serving import ask, fake_model

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:300] for text in real_texts(30)]
PAIRS = [TextPair(first, second) for first, second in zip(TEXTS[10:20], TEXTS[20:], strict=True)]
TOLERANCE = 1e-5
"""Of scores: sums in another order differ by less than 1e-6 here; the promise for what follows from logits is 1e-4."""

NAMES = {0: "sad", 1: "glad", 2: "mad"}
TAGS = {index: f"tag {index}" for index in range(8)}
KINDS: dict[str, dict[str, object]] = {
    "single label": {"num_labels": 3, "id2label": NAMES},
    "several labels": {"num_labels": 8, "id2label": TAGS, "problem_type": "multi_label_classification"},
    "one label": {"num_labels": 1},
    "regression": {"num_labels": 1, "problem_type": "regression"},
}


@pytest.fixture(scope="module")
def folders(checkpoint: Callable[..., Path]) -> dict[str, Path]:
    head = {"head": "ForSequenceClassification", "sentence_transformers": False}
    return {name: checkpoint("bert", **head, **settings) for name, settings in KINDS.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> Iterator[dict[str, LLM]]:
    loaded = {name: LLM(str(folder), dtype="float32") for name, folder in folders.items()}
    yield loaded
    for llm in loaded.values():
        llm.close()


def listed(output) -> list[tuple[str, float]]:
    return [(one.label, one.score) for one in output.outputs.labels]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_pipeline(models, folders, kind):
    pipeline = transformers.pipeline("text-classification", str(folders[kind]))
    prompts = [*TEXTS, *PAIRS]
    inputs = [*TEXTS, *({"text": pair.first, "text_pair": pair.second} for pair in PAIRS)]
    threshold = 0 if kind == "several labels" else None
    outputs = models[kind].classify(prompts, threshold=threshold, use_tqdm=False)
    for asked, output in zip(inputs, outputs, strict=True):
        # The pipeline hands a pair's list of answers out as it is, and wraps a text's.
        expected = pipeline(asked, top_k=None)
        assert [label for label, _ in listed(output)] == [one["label"] for one in expected]
        scores = [score for _, score in listed(output)]
        np.testing.assert_allclose(scores, [one["score"] for one in expected], atol=TOLERANCE, rtol=0)
        assert output.outputs.label == expected[0]["label"]
        assert output.outputs.num_classes == KINDS[kind]["num_labels"]
        np.testing.assert_array_equal(np.sort(output.outputs.probs)[::-1], np.float32(scores))


def test_top_k_lists_the_best_labels_and_keeps_every_score(models):
    everything = models["single label"].classify(TEXTS, use_tqdm=False)
    best = models["single label"].classify(TEXTS, top_k=2, use_tqdm=False)
    for all_labels, two in zip(everything, best, strict=True):
        assert [label for label, _ in listed(two)] == [label for label, _ in listed(all_labels)][:2]
        assert_close([score for _, score in listed(two)], [score for _, score in listed(all_labels)][:2])
        assert len(two.outputs.probs) == 3


def test_a_text_has_every_label_above_the_threshold(models):
    outputs = models["several labels"].classify(TEXTS, use_tqdm=False)
    strict = models["several labels"].classify(TEXTS, threshold=0.7, use_tqdm=False)
    for output, narrower in zip(outputs, strict, strict=True):
        probs = dict(zip(TAGS.values(), output.outputs.probs.tolist(), strict=True))
        assert dict(listed(output)) == {label: score for label, score in probs.items() if score > 0.5}
        assert dict(listed(narrower)) == {label: score for label, score in probs.items() if score > 0.7}
        assert output.outputs.label == max(probs, key=probs.__getitem__)
    assert len({len(listed(output)) for output in (*outputs, *strict)}) > 1


@pytest.mark.parametrize(
    "turn_off",
    [{"pooling_params": PoolingParams(use_activation=False)}, {"operator": False}],
    ids=["request", "server"],
)
def test_of_logits_those_above_zero_are_listed(models, folders, turn_off):
    expected = [
        {label for label, _ in listed(output)} for output in models["several labels"].classify(TEXTS, use_tqdm=False)
    ]
    if "operator" in turn_off:
        with LLM(
            str(folders["several labels"]), dtype="float32", pooler_config=PoolerConfig(use_activation=False)
        ) as llm:
            outputs = llm.classify(TEXTS, use_tqdm=False)
    else:
        outputs = models["several labels"].classify(TEXTS, **turn_off, use_tqdm=False)
    assert [{label for label, _ in listed(output)} for output in outputs] == expected
    assert min(output.outputs.probs.min() for output in outputs) < 0


def test_a_classifier_classifies_unless_another_task_is_named(models, folders):
    assert models["one label"].supported_tasks == ("classify",)
    with LLM(str(folders["one label"]), task="embed") as llm:
        assert llm.supported_tasks == ("embed",)


def test_encode_gives_the_scores_of_every_label(models):
    [output] = models["single label"].encode(TEXTS[5], pooling_task="classify", use_tqdm=False)
    [classified] = models["single label"].classify(TEXTS[5], use_tqdm=False)
    np.testing.assert_allclose(output.outputs.data, classified.outputs.probs, atol=1e-6)


def test_a_parameter_that_the_task_does_not_know_is_refused_with_those_that_it_does(models):
    with pytest.raises(RequestError) as error:
        models["single label"].classify(TEXTS, pooling_params=PoolingParams(dimensions=8), use_tqdm=False)
    assert str(error.value) == (
        "The task 'classify' does not know dimensions. It knows use_activation, truncate_prompt_tokens, "
        "truncation_side, max_tokens_per_query, max_tokens_per_doc, add_special_tokens, prompt_name, input_type."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 0}, "top_k must be greater than or equal to 1, got 0."),
        ({"threshold": float("nan")}, "threshold must be a finite number, got nan."),
    ],
)
def test_a_wrong_field_is_named(models, fields, message):
    with pytest.raises(RequestError) as error:
        models["single label"].classify("a", **fields, use_tqdm=False)
    assert str(error.value) == message


def test_a_prompt_that_fails_leaves_the_scores_of_the_others(models):
    with pytest.raises(BatchError) as error:
        models["single label"].classify([TEXTS[5], [9999]], use_tqdm=False)
    kept, missing = error.value.outputs
    assert missing is None
    [alone] = models["single label"].classify(TEXTS[5], use_tqdm=False)
    np.testing.assert_allclose(kept.outputs.data, alone.outputs.probs, atol=1e-6)


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_the_route_answers_what_the_offline_call_does(models, path):
    llm = models["several labels"]
    outputs = llm.classify(TEXTS, top_k=2, use_tqdm=False)
    response = ask(
        create_app(llm),
        "POST",
        path,
        json={"model": llm.served.name, "input": TEXTS, "top_k": 2, "user": "me", "unknown": 1},
    )
    answer = response.json()
    assert answer.pop("id") == f"classify-{response.headers['x-request-id']}"
    assert isinstance(answer.pop("created"), int)
    data = answer.pop("data")
    tokens = sum(len(output.prompt_token_ids) for output in outputs)
    assert answer == {
        "object": "list",
        "model": llm.served.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    for index, (item, output) in enumerate(zip(data, outputs, strict=True)):
        assert sorted(item) == ["index", "label", "labels", "num_classes", "probs"]
        assert (item["index"], item["label"], item["num_classes"]) == (index, output.outputs.label, 8)
        np.testing.assert_allclose(item["probs"], output.outputs.probs, atol=1e-6)
        assert [one["label"] for one in item["labels"]] == [label for label, _ in listed(output)]
        np.testing.assert_allclose(
            [one["score"] for one in item["labels"]], [score for _, score in listed(output)], atol=1e-6
        )


def test_a_pair_and_raw_scores_can_be_asked_for_over_http(models):
    llm = models["single label"]
    body = {"input": {"first": "a cat", "second": "a dog"}, "use_activation": False}
    [item] = ask(create_app(llm), "POST", "/classify", json=body).json()["data"]
    [output] = llm.classify(
        TextPair("a cat", "a dog"), pooling_params=PoolingParams(use_activation=False), use_tqdm=False
    )
    np.testing.assert_allclose(item["probs"], output.outputs.probs, atol=1e-6)
    assert sum(item["probs"]) != pytest.approx(1)


def test_no_input_is_refused():
    with fake_model("classify") as served:
        response = ask(create_app(served), "POST", "/classify", json={"input": []})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "input is empty. Send at least one text or list of token ids."
