"""The calls of one library: encoders, linear layers and MaxSim."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from poolkit_cpu_kernels._tables import (
    DTYPES,
    STORED,
    CBatch,
    CLayer,
    CTensors,
    DTypeName,
    EncoderSpec,
    EncoderTensors,
    Float32,
    LayerTensors,
    Table,
    c_spec,
    check_array,
    check_layer,
    check_tensors,
)

Int32 = NDArray[np.int32]

_OUT_OF_MEMORY, _UNSUPPORTED = 1, 2  # what calls return where it is not 0
_FLOAT32, _INT32 = np.dtype(np.float32), np.dtype(np.int32)


class Kernels:
    """One of the libraries."""

    def __init__(self, name: str, calls: ctypes.CDLL) -> None:
        calls.encoder_bytes.restype = ctypes.c_int64
        self.name = name
        self._calls = calls
        self.dtypes: tuple[DTypeName, ...] = tuple(
            dtype for bit, dtype in enumerate(DTYPES) if calls.kernels_dtypes() & 1 << bit
        )
        """The dtypes in which this library multiplies."""

    def set_threads(self, threads: int) -> None:
        """Set how many threads all calls into this library together may use, callers included."""
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1.")
        self._calls.kernels_set_threads(threads)

    def encoder(self, spec: EncoderSpec, tensors: EncoderTensors, layers: Iterable[LayerTensors]) -> Encoder | str:
        """Return a model with packed weights, or the reason why this library cannot run it.

        The embedding tables are kept, so that they stand in memory once; all else is copied, a layer at a time.
        """
        if spec.dtype not in self.dtypes:
            return f"the library {self.name} has {', '.join(self.dtypes)}, not {spec.dtype}"
        kept = check_tensors(spec, tensors)
        pointer = ctypes.c_void_p()
        status = self._calls.encoder_new(
            ctypes.byref(c_spec(spec)), ctypes.byref(CTensors(**_addresses(kept))), ctypes.byref(pointer)
        )
        if status == _UNSUPPORTED:
            return f"the library {self.name} has no code for {spec}"
        _check(status)
        handle = _Handle(pointer, self._calls.encoder_free)
        is_causal = True
        ropes = []  # alive until all layers are there: the library tells equal tables by their addresses
        for index, layer in enumerate(layers):
            if index == spec.layers:
                raise ValueError(f"there are more layers than the {spec.layers} of the spec.")
            arrays = check_layer(spec, layer, index)
            ropes.append(arrays.get("rope"))
            is_causal &= layer.after == 0
            numbers = {"scale": layer.scale, "before": layer.before, "after": layer.after}
            rows = len(arrays["rope"]) if "rope" in arrays else 0
            record = CLayer(**_addresses(arrays), **numbers, rope_positions=rows)
            status = self._calls.encoder_add_layer(handle.pointer, ctypes.byref(record))
            if status == _UNSUPPORTED:
                return f"the library {self.name} has no code for layer {index} of {spec}"
            _check(status)
        if len(ropes) != spec.layers:
            raise ValueError(f"there are {len(ropes)} layers, expected the {spec.layers} of the spec.")
        limit = min((len(table) for table in (kept.get("positions"), *ropes) if table is not None), default=None)
        return Encoder(self._calls, handle, spec.hidden, kept, limit, is_causal)

    def linear(self, weight: Float32, bias: Float32 | None = None) -> Linear:
        """Return a float32 linear layer; weight: (outputs, inputs), bias: (outputs)."""
        check_array(weight, "weight", (None, None), _FLOAT32)
        outputs, inputs = weight.shape
        arrays = {"weight": np.ascontiguousarray(weight)}
        if bias is not None:
            check_array(bias, "bias", (outputs,), _FLOAT32)
            arrays["bias"] = np.ascontiguousarray(bias)
        pointer = ctypes.c_void_p()
        call = self._calls.linear_new
        _check(call(_pointer(arrays["weight"]), _pointer(arrays.get("bias")), outputs, inputs, ctypes.byref(pointer)))
        return Linear(self._calls, _Handle(pointer, self._calls.linear_free), outputs, inputs)

    def maxsim(self, query: Float32, documents: Table, cu_seqlens: Int32) -> Float32:
        """Score documents against a query: the sum, over the query's vectors, of the largest product with a document's.

        query: (vectors, dim); documents: (tokens, dim) in float32 or bfloat16, end to end, document i being rows
        `cu_seqlens[i]` to `cu_seqlens[i + 1]`. Returns (documents); an empty document scores 0.
        """
        check_array(query, "query", (None, None), _FLOAT32)
        check_array(documents, "documents", (None, query.shape[1]), *STORED.values())
        lengths = _lengths(cu_seqlens, len(documents))
        scores = np.empty(len(lengths), np.float32)
        arrays = [np.ascontiguousarray(array) for array in (query, documents, cu_seqlens)]
        dtype = list(STORED.values()).index(documents.dtype)
        query_at, documents_at, ends_at = map(_pointer, arrays)
        call = self._calls.maxsim
        _check(call(query_at, *query.shape, documents_at, dtype, ends_at, len(scores), _pointer(scores)))
        return scores


class _Handle:
    """Memory of the library, freed with the last reference: a call under way holds one."""

    def __init__(self, pointer: ctypes.c_void_p, free: Callable[[ctypes.c_void_p], object]) -> None:
        self.pointer = pointer
        weakref.finalize(self, free, pointer).atexit = False  # daemon threads may be in a call then


class Encoder:
    """A model with packed weights. Several threads can run it at once.

    Attributes:
        is_causal: True if no token sees those behind it, so that a text may have a prefix.
    """

    def __init__(
        self,
        calls: ctypes.CDLL,
        handle: _Handle,
        hidden: int,
        tables: Mapping[str, NDArray[np.generic]],
        positions: int | None,
        is_causal: bool,
    ) -> None:
        self._calls = calls
        self._handle: _Handle | None = handle
        self._hidden = hidden
        self._tables = {name: tables[name] for name in ("words", "positions", "types") if name in tables}
        self._positions = positions
        self.is_causal = is_causal

    def run(
        self,
        token_ids: Int32,
        cu_seqlens: Int32,
        *,
        positions: Int32 | None = None,
        types: Int32 | None = None,
        seen: Int32 | None = None,
        prefix: Int32 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return the last hidden states of texts that lie end to end: (tokens, hidden).

        Text i is `token_ids[cu_seqlens[i]:cu_seqlens[i + 1]]`. `positions` are 0, 1, ... in each text and `types` are 0
        unless they are given. Only the first `seen[i]` tokens of text i are seen as keys. In causal models `prefix[i]`
        is an earlier text whose keys and values come before those of text i, or -1. The states are written to `out` if
        it is given. What does not fit the model is a ValueError.

        A text's states are the same bits alone, in any batch, and with any number of threads.
        """
        handle, tables = self._open()
        tokens = len(token_ids)
        lengths = _lengths(cu_seqlens, tokens)
        texts = len(lengths)
        if texts and lengths.min() < 1:
            raise ValueError(f"text {lengths.argmin()} is empty, expected at least one token.")
        arrays = {"cu_seqlens": cu_seqlens, "token_ids": token_ids}
        _check_range(token_ids, "token_ids", tokens, 0, len(tables["words"]))
        if positions is not None:
            arrays["positions"] = positions
            _check_range(positions, "positions", tokens, 0, 2**31 if self._positions is None else self._positions)
        elif texts and self._positions is not None and lengths.max() > self._positions:
            raise ValueError(f"text {lengths.argmax()} has {lengths.max()} tokens, expected at most {self._positions}.")
        if types is not None:
            arrays["types"] = types
            if "types" not in tables:
                raise ValueError("types is given, and the model has no table of them.")
            _check_range(types, "types", tokens, 0, len(tables["types"]))
        if seen is not None:
            arrays["seen"] = seen
            _check_range(seen, "seen", texts, 1, lengths + 1)
        if prefix is not None:
            arrays["prefix"] = prefix
            self._check_prefix(prefix, texts)
        if out is None:
            out = np.empty((tokens, self._hidden), np.float32)
        else:
            check_array(out, "out", (tokens, self._hidden), _FLOAT32)
            if not (out.flags.c_contiguous and out.flags.writeable):
                raise ValueError("out is not writeable or not contiguous in C's order.")
        if texts:
            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            batch = CBatch(**_addresses(arrays), texts=texts)
            _check(self._calls.encoder_run(handle.pointer, ctypes.byref(batch), _pointer(out)))
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights; the embedding tables are the caller's."""
        handle, _ = self._open()
        return int(self._calls.encoder_bytes(handle.pointer))

    def close(self) -> None:
        """Free the weights, at once or when the last run that is under way has ended. Can be called again."""
        self._handle = None
        self._tables = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[_Handle, Mapping[str, NDArray[np.generic]]]:
        tables, handle = self._tables, self._handle
        if handle is None:
            raise ValueError("the encoder is closed.")
        return handle, tables

    def _check_prefix(self, prefix: Int32, texts: int) -> None:
        if not self.is_causal:
            raise ValueError("prefix is given, and the model is not causal.")
        _check_range(prefix, "prefix", texts, -1, np.arange(texts))
        chained = (prefix >= 0) & (prefix[prefix] >= 0)
        if chained.any():
            text = int(chained.argmax())
            raise ValueError(f"prefix of text {text} is text {prefix[text]}, which has a prefix itself.")


class Linear:
    """A float32 linear layer. A row's outputs are the same bits in any batch."""

    def __init__(self, calls: ctypes.CDLL, handle: _Handle, outputs: int, inputs: int) -> None:
        self._calls = calls
        self._handle = handle
        self.outputs = outputs
        self.inputs = inputs

    def run(self, x: Float32) -> Float32:
        """Return x @ weight.T + bias; x: (rows, inputs), the result: (rows, outputs)."""
        check_array(x, "x", (None, self.inputs), _FLOAT32)
        y = np.empty((len(x), self.outputs), np.float32)
        x = np.ascontiguousarray(x)
        _check(self._calls.linear_run(self._handle.pointer, _pointer(x), len(x), _pointer(y)))
        return y


def _lengths(cu_seqlens: Int32, tokens: int) -> Int32:
    check_array(cu_seqlens, "cu_seqlens", (None,), _INT32)
    if not len(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens:
        raise ValueError(f"cu_seqlens is {cu_seqlens}, expected to start with 0 and to end with the {tokens} tokens.")
    lengths = np.diff(cu_seqlens)
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"cu_seqlens falls after entry {lengths.argmin()}, expected ascending numbers.")
    return lengths


def _check_range(array: Int32, name: str, length: int, low: int, high: int | Int32 | NDArray[np.int64]) -> None:
    check_array(array, name, (length,), _INT32)
    wrong = (array < low) | (array >= high)
    if wrong.any():
        index = int(wrong.argmax())
        most = np.broadcast_to(high, array.shape)[index] - 1
        raise ValueError(f"{name}[{index}] is {array[index]}, expected {low} to {most}.")


def _addresses(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
    return {name: array.ctypes.data for name, array in arrays.items()}


def _pointer(array: NDArray[np.generic] | None) -> ctypes.c_void_p | None:
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def _check(status: int) -> None:
    if status == _OUT_OF_MEMORY:
        raise MemoryError("the CPU kernels could not allocate memory.")
    if status != 0:
        raise RuntimeError(f"the CPU kernels answered {status}.")
