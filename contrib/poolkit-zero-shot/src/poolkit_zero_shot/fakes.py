"""Stands in for an NLI model in `poolkit.testing`."""

from dataclasses import replace

from poolkit import Activation, ClassifierSpec
from poolkit.testing import FAKE_MODEL, Fake

__all__ = ["NLI_FAKE"]

LABELS = ClassifierSpec(label_names={0: "contradiction", 1: "neutral", 2: "entailment"}, activation=Activation.IDENTITY)
NLI_FAKE = Fake(model=replace(FAKE_MODEL, classifier=LABELS))
"""`FAKE_MODEL` with the three labels of natural language inference."""
