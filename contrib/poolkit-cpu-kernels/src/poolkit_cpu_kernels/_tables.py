"""A model as a table: the records that describe it, their checks, and the C structures that they become."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Table: TypeAlias = NDArray[np.float32] | NDArray[np.uint16]
DTypeName: TypeAlias = Literal["float32", "bfloat16", "int8"]

DTYPES: tuple[DTypeName, ...] = ("float32", "bfloat16", "int8")
STORED: dict[str, np.dtype[np.generic]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint16),
}  # how numpy holds them
_CHOICES = {  # the C enums, in their order
    "norm": ("layer", "rms"),
    "order": ("post", "pre", "sandwich"),
    "activation": ("gelu", "gelu_tanh", "silu", "relu"),
    "dtype": DTYPES,
    "table_dtype": DTYPES[:2],
}

ALL = 2**31 - 1
"""A window that leaves nothing out."""


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """Sizes and choices of a model. All widths are multiples of 32."""

    hidden: int
    heads: int
    head_dim: int
    intermediate: int
    layers: int
    embedding: int | None = None
    """Columns of the embedding tables; None: `hidden`."""
    kv_heads: int | None = None
    """Heads of keys and values; None: `heads`."""
    norm: Literal["layer", "rms"] = "layer"
    order: Literal["post", "pre", "sandwich"] = "post"
    """Norms after attention and FFN (BERT), before them (ModernBERT, Llama), or both (Gemma 3)."""
    activation: Literal["gelu", "gelu_tanh", "silu", "relu"] = "gelu"
    gated: bool = False
    """The FFN's activation is multiplied by a second product."""
    norm_qk: bool = False
    """Queries and keys are RMS normed, each head by itself."""
    reach: int = 0
    """The farthest distance in a table of position biases (MPNet); 0: there is none."""
    dtype: DTypeName = "float32"
    """Of weights and activations in the products."""
    table_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the embedding tables."""
    epsilon: float = 1e-12
    embedding_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("hidden", "heads", "head_dim", "intermediate", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of: {', '.join(known)}.")
        if self.heads % self.key_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}, expected a divisor of the {self.heads} heads.")

    @property
    def table_columns(self) -> int:
        """Columns of the embedding tables."""
        return self.embedding or self.hidden

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads


@dataclass(frozen=True, kw_only=True)
class EncoderTensors:
    """Tensors of a model outside its layers: embedding tables in the spec's `table_dtype`, all else in float32."""

    words: Table
    positions: Table | None = None
    types: Table | None = None
    norm_weight: Float32 | None = None
    norm_bias: Float32 | None = None
    projection_weight: Float32 | None = None
    """(hidden, embedding), after the embeddings' norm."""
    projection_bias: Float32 | None = None
    final_norm_weight: Float32 | None = None
    final_norm_bias: Float32 | None = None
    position_bias: Float32 | None = None
    """(heads, 2 reach + 1), by key minus query plus reach; farther ones count as the farthest."""


@dataclass(frozen=True, kw_only=True)
class LayerTensors:
    """One layer's tensors in float32, (outputs, inputs) with rows in transformers' order."""

    q_weight: Float32
    q_bias: Float32 | None = None
    k_weight: Float32
    k_bias: Float32 | None = None
    v_weight: Float32
    v_bias: Float32 | None = None
    output_weight: Float32
    output_bias: Float32 | None = None
    gate_weight: Float32 | None = None
    """Gated: what is activated."""
    gate_bias: Float32 | None = None
    up_weight: Float32
    """Gated: what the activation is multiplied by; else the FFN's first product."""
    up_bias: Float32 | None = None
    down_weight: Float32
    down_bias: Float32 | None = None
    attention_norm_weight: Float32 | None = None
    """Order post: after attention; pre and sandwich: before it."""
    attention_norm_bias: Float32 | None = None
    ffn_norm_weight: Float32 | None = None
    ffn_norm_bias: Float32 | None = None
    after_attention_weight: Float32 | None = None
    """Order sandwich: the norm of what attention adds to the residual."""
    after_ffn_weight: Float32 | None = None
    q_norm_weight: Float32 | None = None
    k_norm_weight: Float32 | None = None
    rope: Float32 | None = None
    """(positions, head_dim): head_dim / 2 cosines, then as many sines."""
    scale: float
    """Scores are multiplied by it, usually 1 / sqrt(head_dim)."""
    before: int = ALL
    """Number of tokens before itself that a token sees."""
    after: int = ALL
    """Number of tokens after itself that a token sees; 0: causal."""


MODEL_TENSORS = tuple(field.name for field in fields(EncoderTensors))
LAYER_TENSORS = tuple(field.name for field in fields(LayerTensors) if field.name not in ("scale", "before", "after"))


class CSpec(ctypes.Structure):
    """EncoderSpec of poolkit_cpu_kernels.h."""

    _INTS = (
        *("hidden", "embedding", "heads", "kv_heads", "head_dim", "intermediate", "layers", "norm", "order"),
        *("activation", "gated", "norm_qk", "reach", "dtype", "table_dtype"),
    )
    _fields_ = [
        *((name, ctypes.c_int32) for name in _INTS),
        ("epsilon", ctypes.c_float),
        ("embedding_scale", ctypes.c_float),
    ]


class CTensors(ctypes.Structure):
    """EncoderTensors of poolkit_cpu_kernels.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in MODEL_TENSORS]


class CLayer(ctypes.Structure):
    """LayerTensors of poolkit_cpu_kernels.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in LAYER_TENSORS),
        *(("rope_positions", ctypes.c_int32), ("scale", ctypes.c_float)),
        *(("before", ctypes.c_int32), ("after", ctypes.c_int32)),
    ]


class CBatch(ctypes.Structure):
    """EncoderBatch of poolkit_cpu_kernels.h."""

    _POINTERS = ("token_ids", "positions", "types", "cu_seqlens", "seen", "prefix")
    _fields_ = [*((name, ctypes.c_void_p) for name in _POINTERS), ("texts", ctypes.c_int32)]


def c_spec(spec: EncoderSpec) -> CSpec:
    """Return the C structure of a spec."""
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    values |= {name: known.index(values[name]) for name, known in _CHOICES.items()}
    return CSpec(**values | {"embedding": spec.table_columns, "kv_heads": spec.key_heads})


def check_tensors(spec: EncoderSpec, tensors: EncoderTensors) -> dict[str, NDArray[np.generic]]:
    """Return the tensors that are there, each in one piece; one of the wrong shape or dtype is a ValueError."""
    table, hidden, embedding = (None, spec.table_columns), (spec.hidden,), (spec.table_columns,)
    shapes: dict[str, tuple[int | None, ...]] = {
        **dict.fromkeys(("words", "positions", "types"), table),
        **dict.fromkeys(("norm_weight", "norm_bias"), embedding),
        "projection_weight": (spec.hidden, spec.table_columns),
        **dict.fromkeys(("projection_bias", "final_norm_weight", "final_norm_bias"), hidden),
    }
    needed = {"words"}
    if spec.table_columns != spec.hidden:
        needed.add("projection_weight")
    if spec.reach:
        needed.add("position_bias")
        shapes["position_bias"] = (spec.heads, 2 * spec.reach + 1)
    dtypes = dict.fromkeys(("words", "positions", "types"), STORED[spec.table_dtype])
    return _checked({name: getattr(tensors, name) for name in MODEL_TENSORS}, "", shapes, needed, dtypes)


def check_layer(spec: EncoderSpec, layer: LayerTensors, index: int) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of a layer that are there, each in one piece; a wrong one is a ValueError."""
    hidden, inner = spec.hidden, spec.intermediate
    q, kv = spec.heads * spec.head_dim, spec.key_heads * spec.head_dim
    norms = ("attention_norm_weight", "attention_norm_bias", "ffn_norm_weight", "ffn_norm_bias")
    shapes: dict[str, tuple[int | None, ...]] = {
        "q_weight": (q, hidden),
        "k_weight": (kv, hidden),
        "v_weight": (kv, hidden),
        "output_weight": (hidden, q),
        "q_bias": (q,),
        "k_bias": (kv,),
        "v_bias": (kv,),
        "output_bias": (hidden,),
        "up_weight": (inner, hidden),
        "down_weight": (hidden, inner),
        "up_bias": (inner,),
        "down_bias": (hidden,),
        **dict.fromkeys(norms, (hidden,)),
        "rope": (None, spec.head_dim),
    }
    needed = {"q_weight", "k_weight", "v_weight", "output_weight", "up_weight", "down_weight"}
    for holds, extra in (
        (spec.gated, {"gate_weight": (inner, hidden)}),
        (spec.order == "sandwich", dict.fromkeys(("after_attention_weight", "after_ffn_weight"), (hidden,))),
        (spec.norm_qk, {"q_norm_weight": (spec.head_dim,), "k_norm_weight": (spec.head_dim,)}),
    ):
        if holds:
            shapes.update(extra)
            needed.update(extra)
    if spec.gated:
        shapes["gate_bias"] = (inner,)
    for name in ("before", "after"):
        if not 0 <= getattr(layer, name) <= ALL:
            raise ValueError(f"layer {index}: {name} is {getattr(layer, name)}, expected 0 to {ALL}.")
    given = {name: getattr(layer, name) for name in LAYER_TENSORS}
    return _checked(given, f"layer {index}: ", shapes, needed, {})


def _checked(
    given: Mapping[str, NDArray[np.generic] | None],
    where: str,
    shapes: Mapping[str, tuple[int | None, ...]],
    needed: set[str],
    dtypes: Mapping[str, np.dtype[np.generic]],
) -> dict[str, NDArray[np.generic]]:
    checked = {}
    for name, array in given.items():
        if array is None:
            if name in needed:
                raise ValueError(f"{where}{name} is missing, and the model's spec needs it.")
        elif name not in shapes:
            raise ValueError(f"{where}{name} is given, and the model's spec has no use for it.")
        else:
            check_array(array, f"{where}{name}", shapes[name], dtypes.get(name, np.dtype(np.float32)))
            checked[name] = np.ascontiguousarray(array)
    return checked


def check_array(
    array: NDArray[np.generic], name: str, shape: tuple[int | None, ...], *dtypes: np.dtype[np.generic]
) -> None:
    """Raise ValueError unless the array has this shape, None being any length, and one of these dtypes."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is {type(array).__name__}, expected a numpy array.")
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype not in dtypes:
        lengths = ", ".join("any" if n is None else str(n) for n in shape)
        expected = f"{' or '.join(map(str, dtypes))} of shape ({lengths})"
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected {expected}.")
