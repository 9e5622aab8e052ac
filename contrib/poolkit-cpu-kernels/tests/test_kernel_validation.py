"""Arrays that do not fit a model are refused by name before native code reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from poolkit_cpu_kernels import EncoderSpec
from tiny_models import CU_SEQLENS, POSITIONS, SPEC, TOKEN_IDS, TYPES, WORDS, encoder, layer, random, refused, tensors

HIDDEN = SPEC.hidden


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers is 0, expected a positive number."),
        ({"norm": "batch"}, "norm is 'batch', expected one of: layer, rms."),
        (
            {"activation": "tanh"},
            "activation is 'tanh', expected one of: gelu, gelu_tanh, silu, relu.",
        ),
        ({"table_dtype": "int8"}, "table_dtype is 'int8', expected one of: float32, bfloat16."),
        ({"heads": 4, "kv_heads": 3}, "kv_heads is 3, expected a divisor of the 4 heads."),
    ],
)
def test_a_wrong_spec_is_refused(changes, message):
    sizes = {"hidden": 64, "heads": 2, "head_dim": 32, "intermediate": 96, "layers": 2}

    with refused(message):
        EncoderSpec(**{**sizes, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"words": random(WORDS, 32)},
            "words is float32 of shape (50, 32), expected float32 of shape (any, 64).",
        ),
        (
            {"words": np.zeros((WORDS, HIDDEN), np.uint16)},
            "words is uint16 of shape (50, 64), expected float32 of shape (any, 64).",
        ),
        (
            {"norm_bias": random(HIDDEN).astype(np.float64)},
            "norm_bias is float64 of shape (64,), expected float32 of shape (64).",
        ),
        (
            {"position_bias": random(2, 5)},
            "position_bias is given, and the model's spec has no use for it.",
        ),
        ({"types": [[0.0] * HIDDEN]}, "types is list, expected a numpy array."),
        ({"words": None}, "words is missing, and the model's spec needs it."),
    ],
)
def test_a_wrong_tensor_is_refused(any_kernels, changes, message):
    with refused(message):
        any_kernels.encoder(SPEC, tensors(**changes), [])


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (
            {},
            {"k_weight": random(HIDDEN, 32)},
            "layer 0: k_weight is float32 of shape (64, 32), expected float32 of shape (64, 64).",
        ),
        (
            {"kv_heads": 1},
            {},
            "layer 0: k_weight is float32 of shape (64, 64), expected float32 of shape (32, 64).",
        ),
        ({"gated": True}, {}, "layer 0: gate_weight is missing, and the model's spec needs it."),
        (
            {},
            {"gate_weight": random(96, HIDDEN)},
            "layer 0: gate_weight is given, and the model's spec has no use for it.",
        ),
        (
            {"order": "sandwich"},
            {},
            "layer 0: after_attention_weight is missing, and the model's spec needs it.",
        ),
        (
            {},
            {"rope": random(POSITIONS, 16)},
            "layer 0: rope is float32 of shape (40, 16), expected float32 of shape (any, 32).",
        ),
        ({}, {"before": -1}, "layer 0: before is -1, expected 0 to 2147483647."),
    ],
)
def test_a_wrong_layer_is_refused(any_kernels, spec, changes, message):
    with refused(message):
        any_kernels.encoder(replace(SPEC, **spec), tensors(), [layer(**changes)] * 2)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, "there are 1 layers, expected the 2 of the spec."),
        (3, "there are more layers than the 2 of the spec."),
    ],
)
def test_a_wrong_number_of_layers_is_refused(any_kernels, count, message):
    with refused(message):
        any_kernels.encoder(SPEC, tensors(), [layer()] * count)


def int32(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


IDS, ENDS = int32(1, 2, 3), int32(0, 1, 3)


@pytest.mark.parametrize(
    ("token_ids", "cu_seqlens", "more", "message"),
    [
        (int32(1, WORDS, 3), ENDS, {}, "token_ids[1] is 50, expected 0 to 49."),
        (int32(1, 2, -1), ENDS, {}, "token_ids[2] is -1, expected 0 to 49."),
        (IDS.astype(np.int64), ENDS, {}, "token_ids is int64 of shape (3,), expected int32 of shape (3)."),
        (IDS, int32(), {}, "cu_seqlens is [], expected to start with 0 and to end with the 3 tokens."),
        (IDS, int32(1, 3), {}, "cu_seqlens is [1 3], expected to start with 0 and to end with the 3 tokens."),
        (IDS, int32(0, 4), {}, "cu_seqlens is [0 4], expected to start with 0 and to end with the 3 tokens."),
        (IDS, int32(0, 2, 1, 3), {}, "cu_seqlens falls after entry 1, expected ascending numbers."),
        (IDS, int32(0, 1, 1, 3), {}, "text 1 is empty, expected at least one token."),
        (
            np.zeros(POSITIONS + 2, np.int32),
            int32(0, 1, POSITIONS + 2),
            {},
            "text 1 has 41 tokens, expected at most 40.",
        ),
        (IDS, ENDS, {"positions": int32(0, 1, POSITIONS)}, "positions[2] is 40, expected 0 to 39."),
        (IDS, ENDS, {"positions": int32(0, 1)}, "positions is int32 of shape (2,), expected int32 of shape (3)."),
        (IDS, ENDS, {"types": int32(0, 1, TYPES)}, "types[2] is 2, expected 0 to 1."),
        (IDS, ENDS, {"seen": int32(1, 3)}, "seen[1] is 3, expected 1 to 2."),
        (IDS, ENDS, {"seen": int32(0, 2)}, "seen[0] is 0, expected 1 to 1."),
        (IDS, ENDS, {"prefix": int32(-1, 0)}, "prefix is given, and the model is not causal."),
        (
            IDS,
            ENDS,
            {"out": np.zeros((3, 32), np.float32)},
            "out is float32 of shape (3, 32), expected float32 of shape (3, 64).",
        ),
        (
            IDS,
            ENDS,
            {"out": np.zeros((3, 128), np.float32)[:, ::2]},
            "out is not writeable or not contiguous in C's order.",
        ),
    ],
)
def test_a_wrong_batch_is_refused(any_kernels, token_ids, cu_seqlens, more, message):
    with refused(message):
        encoder(any_kernels).run(token_ids, cu_seqlens, **more)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (int32(-1, 1, -1), "prefix[1] is 1, expected -1 to 0."),
        (int32(-2, -1, -1), "prefix[0] is -2, expected -1 to -1."),
        (int32(-1, 0, 1), "prefix of text 2 is text 1, which has a prefix itself."),
    ],
)
def test_a_wrong_prefix_is_refused(any_kernels, prefix, message):
    with refused(message):
        encoder(any_kernels, after=0).run(TOKEN_IDS, CU_SEQLENS, prefix=prefix)


def test_a_position_past_the_rope_table_is_refused(any_kernels):
    with refused("text 2 has 12 tokens, expected at most 8."):
        encoder(any_kernels, rope=random(8, 32)).run(TOKEN_IDS, CU_SEQLENS)


def test_types_of_a_model_without_types_are_refused(any_kernels):
    model = any_kernels.encoder(SPEC, tensors(types=None), [layer()] * 2)

    with refused("types is given, and the model has no table of them."):
        model.run(IDS, ENDS, types=int32(0, 0, 0))


def test_sizes_that_a_library_lacks_are_told(any_kernels):
    spec = EncoderSpec(hidden=48, heads=2, head_dim=24, intermediate=96, layers=1)

    names = ("positions", "types", "norm_weight", "norm_bias")
    reason = any_kernels.encoder(spec, tensors(words=random(WORDS, 48), **dict.fromkeys(names)), [])

    assert reason == f"the library {any_kernels.name} has no code for {spec}"


def test_a_dtype_that_a_library_lacks_is_told(kernels):
    if "int8" in kernels.dtypes:
        pytest.skip("this library multiplies in every dtype")

    reason = kernels.encoder(replace(SPEC, dtype="int8"), tensors(), [layer()] * 2)

    assert reason == f"the library {kernels.name} has float32, not int8"
