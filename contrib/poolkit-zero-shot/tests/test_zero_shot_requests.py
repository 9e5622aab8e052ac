"""Errors of bad requests, in every shape in which one can be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from poolkit_zero_shot import ZeroShotRequest, ZeroShotResponse
from pydantic import ValidationError

from poolkit.errors import PluginConfigError, RequestError
from poolkit.testing import fake_model, parametrize_with_checks

PLUGIN = "poolkit-zero-shot"
ADVICE = "Put {} once where the label goes, as in 'This example is {}.', and double any other brace"


def problem_of(**fields: Any) -> str:
    """Return what is said of the only field that is wrong."""
    with pytest.raises(ValidationError) as caught:
        ZeroShotRequest(**{"input": "a cat", "candidate_labels": ["pets"], **fields})
    [error] = caught.value.errors()
    return str(error["ctx"]["error"])


@pytest.mark.parametrize("labels", [[], "", " , ,"])
def test_no_labels_are_refused(labels):
    assert problem_of(candidate_labels=labels) == "is empty. Give at least one label"


@pytest.mark.parametrize("labels", [["pets", "sports", "pets"], "pets, sports, pets"])
def test_a_label_that_is_given_twice_is_refused(labels):
    assert problem_of(candidate_labels=labels) == "holds 'pets' twice. Give each label once"


def test_a_blank_label_is_refused():
    assert problem_of(candidate_labels=["pets", " "]) == "is blank. Give some text"


@pytest.mark.parametrize("template", ["", "This example is.", "{{}}"])
def test_a_template_without_a_place_for_the_label_is_refused(template):
    assert problem_of(hypothesis_template=template) == f"has no place for the label. {ADVICE}"


@pytest.mark.parametrize("template", ["{:>999999999}", "{0}", "{label}", "{.__class__}", "{!r}", "{} or {}"])
def test_a_template_may_do_no_more_than_put_the_label_in(template):
    assert problem_of(hypothesis_template=template) == f"has more in braces than the label. {ADVICE}"


@pytest.mark.parametrize("template", ["{", "This is {}}", "}{}"])
def test_a_template_with_half_a_pair_of_braces_is_refused(template):
    assert problem_of(hypothesis_template=template) == f"has a brace that stands alone. {ADVICE}"


def test_a_template_is_bounded_because_it_is_written_out_for_each_label():
    with pytest.raises(ValidationError) as caught:
        ZeroShotRequest(input="a cat", candidate_labels=["pets"], hypothesis_template="{}" + "." * 1000)
    assert caught.value.errors()[0]["msg"] == "String should have at most 1000 characters"


def test_doubled_braces_are_braces():
    request = ZeroShotRequest(input="a cat", candidate_labels=["pets"], hypothesis_template="{{{}}} it is")
    assert request.hypothesis_template.format("pets") == "{pets} it is"


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"input": ""}, "input is blank. Give some text.", "input"),
        ({"input": ["a cat", "\t"]}, "input[1] is blank. Give some text.", "input[1]"),
        ({"input": 5}, "input must be a string or an array, got 5.", "input"),
        ({"candidate_labels": []}, "candidate_labels is empty. Give at least one label.", "candidate_labels"),
        ({"candidate_labels": 5}, "candidate_labels must be an array, got 5.", "candidate_labels"),
        ({"candidate_labels": ["pets", ""]}, "candidate_labels[1] is blank. Give some text.", "candidate_labels[1]"),
        ({"hypothesis_template": "pets"}, f"hypothesis_template has no place for the label. {ADVICE}.", None),
        (
            {"multilabel": True},
            "multilabel is not known. Did you mean 'multi_label'? Known: candidate_labels, "
            "hypothesis_template, multi_label, input, truncate_prompt_tokens.",
            "multilabel",
        ),
    ],
)
def test_the_client_is_told_which_field_is_wrong(ask, fields, message, param):
    response = ask("/zero_shot/classify", {"input": "a cat", "candidate_labels": ["pets"], **fields})

    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["message"], error["param"]) == (message, param or next(iter(fields)))


@pytest.mark.parametrize("path", ["/zero_shot/hub", "/zero_shot/pipeline"])
def test_the_hubs_shape_has_the_same_rules(ask, path):
    response = ask(path, {"inputs": "a cat", "parameters": {"candidate_labels": []}})

    assert response.status_code == 400
    assert response.json()["error"]["message"] == "parameters.candidate_labels is empty. Give at least one label."


def test_a_request_may_not_make_more_pairs_than_the_server_takes():
    with fake_model("zero_shot", plugin=PLUGIN, settings={"max_pairs": 5}) as served:
        fits = served.run("zero_shot", ZeroShotRequest(input="a cat", candidate_labels=["a", "b", "c", "d", "e"]))
        with pytest.raises(RequestError) as caught:
            served.run("zero_shot", ZeroShotRequest(input=["a cat", "a dog"], candidate_labels=["a", "b", "c"]))

    assert isinstance(fits, ZeroShotResponse)
    assert str(caught.value) == (
        "2 texts with 3 labels make 6 pairs; this server takes at most 5 in a request. Send fewer texts at a time."
    )


def test_a_setting_that_is_not_known_is_an_error():
    misspelt = fake_model("zero_shot", plugin=PLUGIN, settings={"max_pair": 5})
    with pytest.raises(PluginConfigError) as caught, misspelt:
        pass

    assert str(caught.value) == (
        "[plugins.poolkit-zero-shot] max_pair: no such setting. Did you mean 'max_pairs'? Settings: max_pairs."
    )


@parametrize_with_checks(PLUGIN)
def test_the_plugin_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
