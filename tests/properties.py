"""Settings of hypothesis for every property: the same examples on every machine, and no files beside the tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["JSON", "TEXTS", "quick"]

TEXTS = st.text(st.characters(codec="utf-8"))
"""Any text that can be sent: no lone surrogates."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=6,
)
"""Any JSON value of a few parts."""


def quick(examples: int) -> settings:
    """Return the settings of a property that is tried with so many examples."""
    return settings(
        max_examples=examples,
        derandomize=True,  # a red run can be repeated
        database=None,
        deadline=None,  # a busy machine is no failure
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
