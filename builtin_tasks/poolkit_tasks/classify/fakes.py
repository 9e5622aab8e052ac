"""Stands in for a classifier in `poolkit.testing`."""

from dataclasses import replace

from poolkit import Activation, ClassifierSpec
from poolkit.testing import FAKE_MODEL, Fake

__all__ = ["CLASSIFY_FAKE"]

CLASSIFY_FAKE = Fake(
    model=replace(FAKE_MODEL, classifier=ClassifierSpec(label_names={0: "LABEL_0"}, activation=Activation.IDENTITY))
)
"""`FAKE_MODEL` with one label: only such a classifier can score pairs."""
