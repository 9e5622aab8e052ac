"""Models as tables, and texts to run them on; without torch, so that a process that needs no more starts fast."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from poolkit_cpu_kernels import Encoder, EncoderSpec, EncoderTensors, Kernels, LayerTensors

VOCABULARY = 500


@dataclass(frozen=True)
class Table:
    """A model as the encoder takes it."""

    spec: EncoderSpec
    tensors: EncoderTensors
    layers: tuple[LayerTensors, ...]


def make(kernels: Kernels, table: Table, dtype: str) -> Encoder:
    encoder = kernels.encoder(replace(table.spec, dtype=dtype), table.tensors, table.layers)
    assert isinstance(encoder, Encoder), encoder
    return encoder


def random_texts(lengths: tuple[int, ...]) -> list[NDArray[np.int32]]:
    generator = np.random.default_rng(0)
    return [generator.integers(2, VOCABULARY, length).astype(np.int32) for length in lengths]


def cu_seqlens(texts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.cumsum([0, *map(len, texts)], dtype=np.int32)


def run(encoder: Encoder, texts: list[NDArray[np.int32]], **arrays: NDArray[np.int32]) -> list[NDArray[np.float32]]:
    """Return the hidden states of each text."""
    ends = cu_seqlens(texts)
    return np.split(encoder.run(np.concatenate(texts), ends, **arrays), ends[1:-1])
