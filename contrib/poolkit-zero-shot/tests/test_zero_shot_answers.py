"""The task answers what transformers' own pipeline answers for the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nli_checkpoints import FAMILIES, LABELS, LONGEST, TEXTS, make_nli_checkpoint
from poolkit_zero_shot import ZeroShotResponse
from zero_shot_asking import post

from poolkit import LLM, create_app
from poolkit.errors import RequestError, UnsupportedTaskError

if TYPE_CHECKING:
    from transformers import ZeroShotClassificationPipeline

TOLERANCE = 1e-5
"""The pipeline runs one pair at a time: in a packed batch the same float32 sums are added up in another order."""

LONG = " ".join(TEXTS * 4)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, nli_checkpoint: Callable[[str], Path]) -> Path:
    return nli_checkpoint(request.param)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with load(folder) as llm:
        yield llm


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> ZeroShotClassificationPipeline:
    from transformers import pipeline

    return pipeline("zero-shot-classification", model=str(folder), device="cpu")


def load(folder: Path) -> LLM:
    return LLM(str(folder), task="zero_shot", enable=["poolkit-zero-shot"], dtype="float32", device="cpu")


def classify(llm: LLM, **fields: object) -> Any:
    return llm.run("zero_shot", fields, use_tqdm=False)


def ask(llm: LLM, path: str, **body: object) -> Any:
    response = post(create_app(llm), path, body)
    assert response.status_code == 200
    return response.json()


def assert_same(ours: Sequence[Any], theirs: Sequence[dict[str, Any]]) -> None:
    assert [one.labels for one in ours] == [one["labels"] for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.scores == pytest.approx(other["scores"], abs=TOLERANCE)


@pytest.mark.parametrize("multi_label", [False, True], ids=["one label fits", "several fit"])
@pytest.mark.parametrize("template", ["This example is {}.", "{}: {{what}} the text is about", "{}"])
def test_several_texts_get_the_pipelines_scores_in_its_order(llm, pipeline, template, multi_label):
    response = classify(
        llm,
        input=list(TEXTS),
        candidate_labels=list(LABELS),
        hypothesis_template=template,
        multi_label=multi_label,
    )

    assert isinstance(response, ZeroShotResponse)
    assert [one.index for one in response.data] == [0, 1, 2, 3]
    theirs = pipeline(list(TEXTS), list(LABELS), hypothesis_template=template, multi_label=multi_label)
    assert_same(response.data, theirs)
    # Else the comparison would say nothing: the checkpoint must tell texts and labels apart.
    assert len({tuple(round(score, 3) for score in one.scores) for one in response.data}) == len(TEXTS)
    assert all(max(one.scores) - min(one.scores) > 100 * TOLERANCE for one in response.data)


def test_a_single_label_is_weighed_against_its_contradiction(llm, pipeline):
    response = classify(llm, input=TEXTS[0], candidate_labels=["sports"])

    assert_same(response.data, [pipeline(TEXTS[0], ["sports"])])
    assert 0 < response.data[0].scores[0] < 1


def test_labels_can_come_in_one_string(llm, pipeline):
    response = classify(llm, input=TEXTS[1], candidate_labels=" sports,economy ,, cooking")

    assert sorted(response.data[0].labels) == ["cooking", "economy", "sports"]
    assert_same(response.data, [pipeline(TEXTS[1], " sports,economy ,, cooking")])


@pytest.mark.parametrize("multi_label", [False, True], ids=["one label fits", "several fit"])
def test_a_long_text_is_cut_and_the_label_kept_as_the_pipeline_does(llm, pipeline, multi_label):
    asked = {"input": [LONG, "No."], "candidate_labels": list(LABELS), "multi_label": multi_label}
    response = classify(llm, **asked, truncate_prompt_tokens=-1)

    assert_same(response.data, pipeline([LONG, "No."], list(LABELS), multi_label=multi_label))
    assert response.usage.prompt_tokens > len(LABELS) * LONGEST


def test_a_long_text_is_refused_unless_it_may_be_cut(llm):
    with pytest.raises(RequestError) as caught:
        classify(llm, input=["No.", LONG], candidate_labels=["sports"])

    message = str(caught.value)
    assert message.startswith("Prompt 1 has ")
    assert message.endswith(
        f" takes at most {LONGEST}. Shorten it, or set truncate_prompt_tokens=-1 to have it cut to that length."
    )


def test_the_hubs_requests_get_the_hubs_answer(llm, pipeline):
    parameters = {"candidate_labels": list(LABELS), "multi_label": True, "hypothesis_template": "This is {}."}
    one = ask(llm, "/zero_shot/hub", inputs=LONG, parameters=parameters)
    several = ask(llm, "/zero_shot/hub", inputs=[LONG, TEXTS[0]], parameters=parameters)

    theirs = pipeline(LONG, **parameters)
    assert [item["label"] for item in one] == theirs["labels"]
    assert [item["score"] for item in one] == pytest.approx(theirs["scores"], abs=TOLERANCE)
    assert [[item["label"] for item in items] for items in several] == [
        theirs["labels"] for theirs in pipeline([LONG, TEXTS[0]], **parameters)
    ]


def test_the_hubs_requests_can_be_answered_like_the_pipeline(llm, pipeline):
    parameters = {"candidate_labels": list(LABELS)}
    one = ask(llm, "/zero_shot/pipeline", inputs=LONG, parameters=parameters)
    several = ask(llm, "/zero_shot/pipeline", inputs=list(TEXTS), parameters=parameters)

    theirs = [pipeline(LONG, **parameters), *pipeline(list(TEXTS), **parameters)]
    for answer, expected in zip([one, *several], theirs, strict=True):
        assert (answer["sequence"], answer["labels"]) == (expected["sequence"], expected["labels"])
        assert answer["scores"] == pytest.approx(expected["scores"], abs=TOLERANCE)


def test_usage_counts_what_ran_through_the_model(llm):
    once = classify(llm, input=TEXTS[0], candidate_labels=["sports"])
    twice = classify(llm, input=[TEXTS[0]] * 2, candidate_labels=["sports"])

    assert 0 < once.usage.prompt_tokens <= LONGEST
    assert twice.usage.prompt_tokens == 2 * once.usage.prompt_tokens


def test_no_texts_have_no_rankings(llm):
    assert classify(llm, input=[], candidate_labels=["sports"]).data == []


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (
            ("LABEL_0", "LABEL_1", "LABEL_2"),
            "its labels are LABEL_0, LABEL_1, LABEL_2; none of them begins with 'entail'. Take a model of natural "
            "language inference, or name its labels with hf_overrides id2label.",
        ),
        (("entailment",), "entailment is its only label, so there is nothing to weigh it against."),
    ],
    ids=["no entailment", "nothing but entailment"],
)
def test_a_model_without_the_verdicts_cannot_serve_the_task(tmp_path, labels, reason):
    folder = make_nli_checkpoint(tmp_path, "bert", labels=labels)

    with pytest.raises(UnsupportedTaskError) as caught:
        load(folder)

    assert str(caught.value).partition("\n")[0] == f"model {str(folder)!r} cannot serve 'zero_shot': {reason}"


def test_labels_can_be_named_by_the_user(tmp_path, nli_checkpoint):
    folder = make_nli_checkpoint(tmp_path, "bert", labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    named = {"id2label": {"0": "contradiction", "1": "neutral", "2": "entailment"}}

    with (
        LLM(str(folder), task="zero_shot", enable=["zero-shot"], dtype="float32", hf_overrides=named) as llm,
        load(nli_checkpoint("bert")) as expected,
    ):
        asked = {"input": TEXTS[0], "candidate_labels": list(LABELS)}
        [ours], [theirs] = classify(llm, **asked).data, classify(expected, **asked).data
    assert ours.labels == theirs.labels
    assert ours.scores == pytest.approx(theirs.scores, abs=TOLERANCE)  # the labels may meet in other batches
