"""A small encoder with random weights, as records of numpy arrays."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from poolkit_cpu_kernels import ALL, Encoder, EncoderSpec, EncoderTensors, Kernels, LayerTensors

SPEC = EncoderSpec(hidden=64, heads=2, head_dim=32, intermediate=96, layers=2)
WORDS, POSITIONS, TYPES = 50, 40, 2
TOKEN_IDS = np.arange(20, dtype=np.int32)
CU_SEQLENS = np.array([0, 1, 8, 20], np.int32)


def random(*shape: int) -> NDArray[np.float32]:
    """Return small random numbers, the same for the same shape."""
    return (np.random.default_rng(shape).standard_normal(shape) * 0.1).astype(np.float32)


def tensors(**changes: Any) -> EncoderTensors:
    hidden = SPEC.hidden
    made = EncoderTensors(
        words=random(WORDS, hidden),
        positions=random(POSITIONS, hidden),
        types=random(TYPES, hidden),
        norm_weight=1 + random(hidden),
        norm_bias=random(hidden),
    )
    return replace(made, **changes)


def layer(**changes: Any) -> LayerTensors:
    hidden, inner = SPEC.hidden, SPEC.intermediate
    made = LayerTensors(
        q_weight=random(hidden, hidden),
        k_weight=random(hidden, hidden),
        v_weight=random(hidden, hidden),
        output_weight=random(hidden, hidden),
        up_weight=random(inner, hidden),
        up_bias=random(inner),
        down_weight=random(hidden, inner),
        attention_norm_weight=1 + random(hidden),
        attention_norm_bias=random(hidden),
        ffn_norm_weight=1 + random(hidden),
        ffn_norm_bias=random(hidden),
        scale=SPEC.head_dim**-0.5,
        after=ALL,
    )
    return replace(made, **changes)


def encoder(kernels: Kernels, **changes: Any) -> Encoder:
    """Return the model, with changes to its layers."""
    made = kernels.encoder(SPEC, tensors(), [layer(**changes)] * SPEC.layers)
    assert isinstance(made, Encoder), made
    return made


def refused(message: str) -> pytest.RaisesExc[ValueError]:
    """Expect a ValueError with exactly this text."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")
