"""What stands in for an NLI model in `poolkit.testing`."""

from dataclasses import replace

from poolkit.testing import FAKE_MODEL, Fake

__all__ = ["NLI_FAKE"]

NLI_FAKE = Fake(model=replace(FAKE_MODEL, label_names={0: "contradiction", 1: "neutral", 2: "entailment"}))
"""`FAKE_MODEL` with the three labels of natural language inference."""
