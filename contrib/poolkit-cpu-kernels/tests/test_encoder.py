"""Encoders of every family against transformers in float32, in each library and dtype."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from families import FAMILIES, build, reference, with_bfloat16_tables
from numpy.typing import NDArray
from poolkit_cpu_kernels import Kernels
from tables import Table, make, random_texts, run
from torch import nn

LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 129, 200, 300)
"""Around the sizes of tiles, blocks and windows, and one that is cut into spans."""

LEAST_COSINE = {"float32": 0.999999, "bfloat16": 0.9998, "int8": 0.998}
"""Of a token's state, against float32. bfloat16 has 8 bits, and these models' weights are larger than trained ones."""


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def assert_close(states: NDArray[np.float32], expected: NDArray[np.float32], dtype: str) -> None:
    assert cosines(states, expected).min() > LEAST_COSINE[dtype]
    if dtype == "float32":
        assert np.abs(states - expected).max() < 5e-6 * np.abs(expected).max()


@cache
def built(family: str) -> tuple[nn.Module, Table]:
    return build(family)


@cache
def expected_states(family: str) -> list[NDArray[np.float32]]:
    model, _ = built(family)
    return [reference(model, text) for text in random_texts(LENGTHS)]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_transformers(kernels: Kernels, dtype: str, family: str) -> None:
    _, table = built(family)
    with make(kernels, table, dtype) as encoder:
        states = run(encoder, random_texts(LENGTHS))
    assert_close(np.concatenate(states), np.concatenate(expected_states(family)), dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_same_bits_alone_and_in_any_batch_with_any_threads(
    kernels: Kernels, dtype: str, family: str
) -> None:
    _, table = built(family)
    texts = random_texts(LENGTHS)
    with make(kernels, table, dtype) as encoder:
        together = run(encoder, texts)
        reversed_batch = run(encoder, texts[::-1])[::-1]
        for threads in (1, 3):
            kernels.set_threads(threads)
            for text, *batches in zip(texts, together, reversed_batch, strict=True):
                (alone,) = run(encoder, [text])
                for states in batches:
                    np.testing.assert_array_equal(alone, states)


@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert", "qwen3"])
def test_only_the_tokens_that_are_seen_are_attended_to(kernels: Kernels, dtype: str, family: str) -> None:
    model, table = built(family)
    texts = random_texts((40, 70, 64))
    seen = [13, 33, 64]
    with make(kernels, table, dtype) as encoder:
        states = run(encoder, texts, seen=np.array(seen, np.int32))
    for text, own, count in zip(texts, states, seen, strict=True):
        assert_close(own[:count], reference(model, text, seen=count)[:count], dtype)
        assert np.isfinite(own).all()  # also where a window has nothing that is seen


def test_positions_and_types_are_those_of_the_caller(kernels: Kernels, dtype: str) -> None:
    model, table = built("bert")
    (text,) = random_texts((50,))
    positions, types = np.arange(50, dtype=np.int32) * 2 + 3, (np.arange(50) > 20).astype(np.int32)
    with make(kernels, table, dtype) as encoder:
        (states,) = run(encoder, [text], positions=positions, types=types)
    tensors = {"input_ids": text, "position_ids": positions, "token_type_ids": types}
    with torch.inference_mode():
        output = model(**{name: torch.from_numpy(ids.astype(np.int64))[None] for name, ids in tensors.items()})
    assert_close(states, output.last_hidden_state[0].numpy(), dtype)


@pytest.mark.parametrize("family", ["bert", "gemma"])
def test_embedding_tables_can_be_bfloat16(kernels: Kernels, dtype: str, family: str) -> None:
    _, table = built(family)
    rounded, halves = with_bfloat16_tables(table)
    with make(kernels, rounded, dtype) as floats, make(kernels, halves, dtype) as encoder:
        for expected, states in zip(
            run(floats, random_texts(LENGTHS)), run(encoder, random_texts(LENGTHS)), strict=True
        ):
            np.testing.assert_array_equal(states, expected)


@pytest.mark.parametrize("family", ["mpnet", "modernbert", "mistral", "qwen3", "gemma3"])
def test_texts_longer_than_a_piece_of_keys(kernels: Kernels, dtype: str, family: str) -> None:
    """2 048 keys are taken at once; more in pieces, with a running softmax."""
    model, table = built(family)
    texts = random_texts((2048, 2049, 2500) if kernels.name != "emulated" else (2100,))
    with make(kernels, table, dtype) as encoder:
        states = run(encoder, texts)
        kernels.set_threads(3)
        (alone,) = run(encoder, texts[-1:])
    np.testing.assert_array_equal(alone, states[-1])
    assert_close(alone, reference(model, texts[-1]), dtype)
    assert_close(states[0], reference(model, texts[0]), dtype)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3"])
@pytest.mark.parametrize("length", [1, 32, 45])
def test_a_text_after_a_prefix_has_the_bits_of_both_as_one(
    kernels: Kernels, dtype: str, family: str, length: int
) -> None:
    _, table = built(family)
    prefix, *texts = random_texts((length, 1, 17, 32, 64, 300))
    after = np.array([-1] + [0] * len(texts), np.int32)
    with make(kernels, table, dtype) as encoder:
        states = run(encoder, [prefix, *texts], prefix=after)
        np.testing.assert_array_equal(states[0], run(encoder, [prefix])[0])
        for text, own in zip(texts, states[1:], strict=True):
            np.testing.assert_array_equal(own, run(encoder, [np.concatenate([prefix, text])])[0][length:])


def test_widths_that_are_no_multiples_of_32_are_refused(kernels: Kernels) -> None:
    _, table = built("bert")
    spec = replace(table.spec, intermediate=150)
    assert kernels.encoder(spec, table.tensors, table.layers) == f"the library {kernels.name} has no code for {spec}"
