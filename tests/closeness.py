"""Compare the numbers of two runs of a model, which agree to a tolerance and not to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["TOLERANCE", "assert_close", "assert_ranks"]

TOLERANCE = 1e-5
"""The promise. Prompts meet in batches as timing has it, and kernels sum in an order that depends on the batch's shape
and on the processor: float32 results differ by 1e-6 at most here."""


def assert_close(actual: ArrayLike, expected: ArrayLike) -> None:
    """Assert that two runs gave the same numbers, in the same shape, up to `TOLERANCE`."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


def assert_ranks(ranking: Sequence[tuple[int, float]], scores: Sequence[float]) -> None:
    """Assert that a ranking holds the best documents, the best first; scores within `TOLERANCE` may change places.

    Args:
        ranking: the index and the score of each document that was returned.
        scores: the score of every document by its index, from another run.
    """
    indexes, found = zip(*ranking, strict=True)
    assert list(found) == sorted(found, reverse=True)
    assert len(set(indexes)) == len(indexes)
    assert_close(found, sorted(scores, reverse=True)[: len(ranking)])
    assert_close(found, [scores[index] for index in indexes])
