"""A task whose prompts run in groups: what the kit asks of it, and bugs that it finds there."""

import pytest

from poolkit.testing import Verdict, check_plugin

PRE = "return Prepared(request.texts, state=request.note)"
GROUPED = "return Prepared(request.texts, groups=['all'] * len(request.texts), state=request.note)"
POST = "return Response(sums=[float(output.data.sum()) for output in outputs], note=prepared.state)"
SHARES = """sums = [float(output.data.sum()) for output in outputs]
        shares = [2.0 ** one / sum(2.0 ** other for other in sums) for one in sums]"""


@pytest.fixture
def results(install):
    """Return a function that makes the sound task one of groups, plants bugs in it and returns the kit's results."""

    def results(changes=None):
        install({PRE: GROUPED, **(changes or {})})
        return {result.name: result for result in check_plugin("poolkit-sound")}

    return results


def breaches(results):
    return {name: result.message for name, result in results.items() if result.verdict in ("failed", "warned")}


def test_a_sound_task(results):
    found = results()
    assert breaches(found) == {}
    assert found["order_is_kept"].verdict is Verdict.PASSED
    assert found["duplicates_keep_their_place"].verdict is Verdict.PASSED


def test_answers_may_depend_on_the_others_of_the_group(results):
    found = results({POST: f"{SHARES}\n        return Response(sums=shares, note=prepared.state)"})
    assert breaches(found) == {}
    assert found["batch_equals_singles"].message == "the items of every list of texts are weighed together"


def test_answers_that_are_sorted(results):
    found = results({POST: f"{SHARES}\n        return Response(sums=sorted(shares), note=prepared.state)"})
    assert breaches(found) == {"order_is_kept": "sound/sum, example 0: 'sums' is not in the order of 'texts'."}


def test_answers_that_depend_on_others_outside_of_the_group(results):
    alone = "return Prepared(request.texts, groups=list(range(len(request.texts))), state=request.note)"
    found = results({GROUPED: alone, POST: f"{SHARES}\n        return Response(sums=shares, note=prepared.state)"})
    assert breaches(found).keys() == {"batch_equals_singles"}


def test_fewer_groups_than_prompts(results):
    found = results({"* len(request.texts)": "* len(set(request.texts))"})
    assert breaches(found).keys() == {"duplicates_keep_their_place"}
