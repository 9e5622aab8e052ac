"""MaxSim against float64, for documents of all lengths around a block's 32 rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import refused

LENGTHS = [1, 2, 15, 0, 16, 17, 31, 32, 33, 63, 64, 65, 3, 3, 0]
MANY = [100] * 25  # more rows than one thread takes at a time


def unit(vectors: int, dim: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng([vectors, dim]).standard_normal((vectors, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def starts(lengths: list[int]) -> NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int32)


def to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(x: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (x.astype(np.uint32) << 16).view(np.float32)


def reference(query: NDArray[np.float32], documents: NDArray[np.float32], cu_seqlens: NDArray[np.int32]) -> list[float]:
    products = query.astype(np.float64) @ documents.astype(np.float64).T
    pairs = pairwise(cu_seqlens)
    return [products[:, start:stop].max(1).sum() if stop > start else 0.0 for start, stop in pairs]


@pytest.mark.parametrize("dim", [1, 16, 31, 64, 100, 128])
@pytest.mark.parametrize("vectors", [1, 15, 16, 17, 32, 33, 70])
def test_float32_scores_are_those_of_float64(kernels, vectors, dim):
    query, documents, cu_seqlens = unit(vectors, dim), unit(sum(LENGTHS), dim), starts(LENGTHS)

    scores = kernels.maxsim(query, documents, cu_seqlens)

    # Tiles multiply floats as two bfloat16 numbers, and leave out 2^-17 of each; all else is float32's own rounding.
    tolerance = vectors * (2e-5 if kernels.name in ("amx", "emulated") else 1e-6)
    np.testing.assert_allclose(scores, reference(query, documents, cu_seqlens), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dim", [1, 16, 31, 64, 128])
@pytest.mark.parametrize("vectors", [1, 17, 33])
def test_bfloat16_scores_are_those_of_the_rounded_numbers(kernels, vectors, dim):
    query, documents, cu_seqlens = unit(vectors, dim), to_bfloat16(unit(sum(LENGTHS), dim)), starts(LENGTHS)

    scores = kernels.maxsim(query, documents, cu_seqlens)

    multiplied = widened(to_bfloat16(query)) if "bfloat16" in kernels.dtypes else query
    expected = reference(multiplied, widened(documents), cu_seqlens)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=vectors * 2e-6)


@pytest.mark.parametrize("as_bfloat16", [False, True])
@pytest.mark.parametrize("dim", [33, 64])
def test_a_document_has_the_same_bits_alone_and_in_any_batch(kernels, as_bfloat16, dim):
    lengths = LENGTHS if kernels.name == "emulated" else LENGTHS + MANY
    query, documents, cu_seqlens = unit(40, dim), unit(sum(lengths), dim), starts(lengths)
    stored = to_bfloat16(documents) if as_bfloat16 else documents

    scores = kernels.maxsim(query, stored, cu_seqlens)
    pairs = pairwise(cu_seqlens)
    alone = [kernels.maxsim(query, stored[start:stop], starts([stop - start]))[0] for start, stop in pairs]
    kernels.set_threads(1)

    assert scores.tolist() == alone
    assert kernels.maxsim(query, stored, cu_seqlens).tolist() == alone


def test_the_arrays_need_not_be_in_one_piece(kernels):
    query, documents, cu_seqlens = unit(3, 64), unit(40, 64), starts([10, 30])

    scores = kernels.maxsim(query[:, ::2], documents[:, ::2], cu_seqlens)

    assert scores.tolist() == kernels.maxsim(query[:, ::2].copy(), documents[:, ::2].copy(), cu_seqlens).tolist()


@pytest.mark.parametrize("row", [0, 5, 9])
def test_a_document_with_nan_scores_nan_and_its_neighbours_do_not(kernels, row):
    query, documents, cu_seqlens = unit(3, 64), unit(30, 64), starts([10, 10, 10])
    documents[10 + row, 7] = np.nan

    assert np.isnan(kernels.maxsim(query, documents, cu_seqlens)).tolist() == [False, True, False]


def test_nothing_scores_nothing(kernels):
    no_vectors = kernels.maxsim(unit(3, 64)[:0], unit(5, 64), starts([2, 3]))
    no_documents = kernels.maxsim(unit(3, 64), unit(5, 64)[:0], starts([]))
    empty_documents = kernels.maxsim(unit(3, 64), unit(5, 64)[:0], starts([0, 0]))

    assert [no_vectors.tolist(), no_documents.tolist(), empty_documents.tolist()] == [[0, 0], [], [0, 0]]


@pytest.mark.parametrize(
    ("query", "documents", "cu_seqlens", "message"),
    [
        (
            unit(3, 8)[0],
            unit(5, 8),
            starts([5]),
            "query is float32 of shape (8,), expected float32 of shape (any, any).",
        ),
        (
            unit(3, 8),
            unit(5, 9),
            starts([5]),
            "documents is float32 of shape (5, 9), expected float32 or uint16 of shape (any, 8).",
        ),
        (
            unit(3, 8),
            unit(5, 8).astype(np.float16),
            starts([5]),
            "documents is float16 of shape (5, 8), expected float32 or uint16 of shape (any, 8).",
        ),
        (
            unit(3, 8),
            unit(5, 8),
            starts([4]),
            "cu_seqlens is [0 4], expected to start with 0 and to end with the 5 tokens.",
        ),
        (
            unit(3, 8),
            unit(5, 8),
            np.array([0, 4, 2, 5], np.int32),
            "cu_seqlens falls after entry 1, expected ascending numbers.",
        ),
        (
            unit(3, 8),
            unit(5, 8),
            np.array([0, 5]),
            "cu_seqlens is int64 of shape (2,), expected int32 of shape (any).",
        ),
    ],
)
def test_what_does_not_fit_is_refused(any_kernels, query, documents, cu_seqlens, message):
    with refused(message):
        any_kernels.maxsim(query, documents, cu_seqlens)
