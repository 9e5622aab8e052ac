"""The limits of the machine, measured: the best rate of a matrix product and of reading memory, with all threads.

A model cannot be faster than its products at the best rate that any product reaches here, nor than its weights can be
read once where a batch is so small that nothing else counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig

__all__ = ["Encoder", "Limits", "measure_limits", "read_encoder"]

ROWS = (16, 64, 256, 1024, 4096)
"""Tokens of a batch."""
LARGE = 4096
READ_BYTES = 1 << 28
SECONDS = 0.4
"""Of each measurement, of which the best repetition counts."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Encoder:
    """The amount of work in an encoder like BERT.

    Attributes:
        weights: parameters that each token is multiplied with.
        attention: operations a token for each token that it attends to.
        dtype: of the weights.
    """

    weights: int
    attention: int
    dtype: str

    def operations(self, tokens: Sequence[int]) -> int:
        """Return the floating-point operations for texts of so many tokens: two a multiplication and addition."""
        return sum(2 * self.weights * length + self.attention * length * length for length in tokens)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes that are read once for each batch at least."""
        return self.weights * BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Limits:
    """The rates that the machine reached.

    Attributes:
        products: operations a second by the shape (rows, inputs, outputs) of the product.
        bytes_per_s: read from memory.
    """

    products: Mapping[tuple[int, int, int], float]
    bytes_per_s: float

    @property
    def best(self) -> float:
        """Return the best rate of all products, in operations a second."""
        return max(self.products.values())

    def seconds(self, encoder: Encoder, tokens: Sequence[int]) -> float:
        """Return the least time for a batch of texts of so many tokens."""
        return max(encoder.operations(tokens) / self.best, encoder.weight_bytes / self.bytes_per_s)


def read_encoder(folder: str, dtype: str) -> Encoder:
    """Return the work in the BERT model of a folder."""
    config = AutoConfig.from_pretrained(folder)
    hidden, middle, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return Encoder(
        weights=layers * (4 * hidden * hidden + 2 * hidden * middle), attention=4 * hidden * layers, dtype=dtype
    )


def measure_limits(folder: str, dtype: str) -> Limits:
    """Measure products of the model's shapes, and one large product, in the dtype that the model is served in."""
    config = AutoConfig.from_pretrained(folder)
    shapes = [(rows, config.hidden_size, 3 * config.hidden_size) for rows in ROWS]
    shapes += [(rows, config.hidden_size, config.intermediate_size) for rows in ROWS]
    shapes.append((LARGE, LARGE, LARGE))
    return Limits({shape: _product_rate(shape, dtype) for shape in shapes}, _read_rate())


def _product_rate(shape: tuple[int, int, int], dtype: str) -> float:
    rows, inputs, outputs = shape
    kind = getattr(torch, dtype if dtype != "int8" else "bfloat16")  # int8's own products are not torch's
    with torch.inference_mode():
        x = torch.randn(rows, inputs).to(kind)
        weight = torch.randn(outputs, inputs).to(kind)
        return 2 * rows * inputs * outputs / _best_seconds(lambda: torch.nn.functional.linear(x, weight))


def _read_rate() -> float:
    data = torch.ones(READ_BYTES // 4)
    return READ_BYTES / _best_seconds(data.sum)


def _best_seconds(work: Callable[[], object]) -> float:
    work()
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)
