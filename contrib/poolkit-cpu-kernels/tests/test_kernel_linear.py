"""Linear layers against float64."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import random, refused


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (3, 64), (33, 31), (64, 384), (600, 50)])
@pytest.mark.parametrize("rows", [1, 31, 65])
def test_outputs_are_those_of_float64(kernels, rows, outputs, inputs):
    weight, bias, x = random(outputs, inputs), random(outputs), random(rows, inputs)

    y = kernels.linear(weight, bias).run(x)

    expected = x.astype(np.float64) @ weight.astype(np.float64).T + bias
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


def test_a_layer_may_have_no_bias(kernels):
    weight, x = random(5, 40), random(3, 40)

    np.testing.assert_allclose(kernels.linear(weight).run(x), x @ weight.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 50), (600, 384)])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(kernels, outputs, inputs):
    layer, x = kernels.linear(random(outputs, inputs), random(outputs)), random(150, inputs)

    together = layer.run(x)
    kernels.set_threads(1)

    assert np.array_equal(together, layer.run(x))
    assert np.array_equal(together, np.concatenate([layer.run(row[None]) for row in x]))


def test_no_rows_give_no_rows(kernels):
    assert kernels.linear(random(3, 8)).run(random(1, 8)[:0]).shape == (0, 3)


def test_the_arrays_need_not_be_in_one_piece(kernels):
    weight, bias, x = random(64, 10).T, random(20)[::2], random(64, 3).T

    np.testing.assert_allclose(kernels.linear(weight, bias).run(x), x @ weight.T + bias, rtol=0, atol=1e-6)


def test_what_does_not_fit_is_refused(any_kernels):
    with refused("weight is float32 of shape (8,), expected float32 of shape (any, any)."):
        any_kernels.linear(random(8))
    with refused("bias is float32 of shape (4,), expected float32 of shape (3)."):
        any_kernels.linear(random(3, 8), random(4))
    with refused("x is float32 of shape (5, 7), expected float32 of shape (any, 8)."):
        any_kernels.linear(random(3, 8)).run(random(5, 7))
