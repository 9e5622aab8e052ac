"""The built-in tasks and hook modules keep the rules that poolkit sets for others."""

import importlib_metadata
import pytest

from poolkit.testing import check_plugin

HOOKS = importlib_metadata.distribution("poolkit").entry_points.select(group="poolkit.plugins")


@pytest.mark.parametrize("name", ["poolkit", *(f"poolkit-{entry.name}" for entry in HOOKS)])
def test_what_poolkit_brings_keeps_every_rule(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is left behind in the user's own
    results = check_plugin(name)
    assert {result.name: result.message for result in results if result.verdict in ("failed", "warned")} == {}
