"""The metrics of a server beside those of plugins and of several models."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from poolkit import create_app
from poolkit.testing import fake_model
from serving import ask

STAGES = ("decode", "tokenize", "queue", "forward", "encode")


def test_the_stages_of_requests_are_measured():
    with fake_model("embed") as served:
        app = create_app(served)
        before = stage_seconds(app)
        assert ask(app, "POST", "/v1/embeddings", json={"input": ["a text", "another"]}).status_code == 200
        after = stage_seconds(app)
    assert before == dict.fromkeys(STAGES, 0.0)
    assert list(after) == list(STAGES)
    assert all(seconds > 0 for seconds in after.values())


def stage_seconds(app) -> dict[str, float]:
    families = text_string_to_metric_families(ask(app, "GET", "/metrics").text)
    [family] = [family for family in families if family.name == "poolkit_stage_seconds"]
    return {sample.labels["stage"]: sample.value for sample in family.samples}
