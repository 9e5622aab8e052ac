"""Runs a small encoder of the CPU kernels on texts of the given lengths in one batch. Executed by valgrind."""

from __future__ import annotations

import sys

import numpy as np

HIDDEN, HEADS, MIDDLE, LAYERS = 128, 4, 512, 1
WORDS = 64


OPERATIONS_PER_TOKEN = 2 * LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * MIDDLE)
"""Of the products: a multiplication and an addition each, attention left out."""


def main(lengths: list[int]) -> None:
    """Run texts of so many tokens."""
    from poolkit_cpu_kernels import ALL, EncoderSpec, EncoderTensors, LayerTensors, load

    kernels = load()
    assert kernels is not None
    kernels.set_threads(1)

    def ones(*shape: int) -> np.ndarray:
        return np.full(shape, 0.01, np.float32)

    spec = EncoderSpec(hidden=HIDDEN, heads=HEADS, head_dim=HIDDEN // HEADS, intermediate=MIDDLE, layers=LAYERS)
    layer = LayerTensors(
        q_weight=ones(HIDDEN, HIDDEN),
        k_weight=ones(HIDDEN, HIDDEN),
        v_weight=ones(HIDDEN, HIDDEN),
        output_weight=ones(HIDDEN, HIDDEN),
        up_weight=ones(MIDDLE, HIDDEN),
        up_bias=ones(MIDDLE),
        down_weight=ones(HIDDEN, MIDDLE),
        attention_norm_weight=ones(HIDDEN),
        attention_norm_bias=ones(HIDDEN),
        ffn_norm_weight=ones(HIDDEN),
        ffn_norm_bias=ones(HIDDEN),
        scale=(HIDDEN // HEADS) ** -0.5,
        after=ALL,
    )
    tables = EncoderTensors(
        words=ones(WORDS, HIDDEN),
        positions=ones(512, HIDDEN),
        types=ones(2, HIDDEN),
        norm_weight=ones(HIDDEN),
        norm_bias=ones(HIDDEN),
    )
    encoder = kernels.encoder(spec, tables, [layer] * LAYERS)
    assert not isinstance(encoder, str), encoder
    ids = np.arange(sum(lengths), dtype=np.int32) % WORDS
    encoder.run(ids, np.cumsum([0, *lengths], dtype=np.int32))


if __name__ == "__main__":
    main([int(length) for length in sys.argv[1:]])
