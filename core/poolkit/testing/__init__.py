"""For the tests of plugins: the conformance kit, and a model that needs no weights.

No check loads a model or asks the network for anything. `poolkit plugins check NAME` runs them from the command line.
"""

from poolkit.testing.fake_engine import FAKE_MODEL, Fake, FakeBackbone, FakeTokenizer
from poolkit.testing.kit import check_plugin
from poolkit.testing.pytest_checks import parametrize_with_checks
from poolkit.testing.results import CheckResult, Verdict
from poolkit.testing.serving import fake_model

__all__ = [
    "FAKE_MODEL",
    "CheckResult",
    "Fake",
    "FakeBackbone",
    "FakeTokenizer",
    "Verdict",
    "check_plugin",
    "fake_model",
    "parametrize_with_checks",
]
