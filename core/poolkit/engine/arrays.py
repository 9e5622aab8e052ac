"""Operations on numpy arrays and on torch tensors, in one table, so that pooling is written once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from poolkit.contract import Batch, BatchArrays, SegmentArrays, Segments

__all__ = ["AnyArray", "ArrayT", "Operations", "inference", "is_out_of_memory", "operations_of"]

SMALLEST_NORM = 1e-12
"""A vector of zeros stays one when it is normalised. torch's own."""


ArrayT = TypeVar("ArrayT")

AnyArray: TypeAlias = Any
"""A numpy array or a torch tensor: their types share nothing that a type checker could hold on to."""


class Operations(Protocol[ArrayT]):
    """The operations that numpy and torch have under different names, or not at all."""

    def float32(self, array: ArrayT) -> ArrayT:
        """Return the array in float32."""
        ...

    def concatenate(self, arrays: Sequence[ArrayT], *, axis: int = 0) -> ArrayT:
        """Return the arrays as one."""
        ...

    def normalize(self, rows: ArrayT) -> ArrayT:
        """Divide each row by its L2 norm."""
        ...

    def softmax(self, rows: ArrayT) -> ArrayT:
        """Turn each row into numbers that add up to 1."""
        ...

    def sigmoid(self, rows: ArrayT) -> ArrayT:
        """Squash each number to between 0 and 1."""
        ...

    def segment_sum(self, rows: ArrayT, segments: SegmentArrays[ArrayT]) -> ArrayT:
        """Add up each segment's rows. (tokens, dim) -> (segments, dim)"""
        ...

    def segment_max(self, rows: ArrayT, segments: SegmentArrays[ArrayT]) -> ArrayT:
        """Return the largest of each segment's numbers, or -inf where it has none. (tokens, dim) -> (segments, dim)"""
        ...

    def where(self, condition: ArrayT, first: ArrayT, second: ArrayT | float) -> ArrayT:
        """Return `first` where the condition holds, else `second`."""
        ...

    def select(self, rows: ArrayT, is_selected: NDArray[np.bool_]) -> ArrayT:
        """Return some of the rows, told by a mask on the host: nothing waits for a device."""
        ...

    def take(self, rows: ArrayT, index: NDArray[np.integer]) -> ArrayT:
        """Return the rows at some places, told on the host."""
        ...

    def product(self, left: ArrayT, right: ArrayT) -> ArrayT:
        """Return left @ right.T, in float32. (n, dim), (m, dim) -> (n, m)"""
        ...

    def is_finite(self, array: ArrayT) -> ArrayT:
        """Return 1 if no number is NaN or infinite, else 0. (1,), float32"""
        ...

    def copy(self, array: ArrayT) -> ArrayT:
        """Return a copy in float32."""
        ...

    def split(self, rows: ArrayT, lengths: Sequence[int]) -> Sequence[ArrayT]:
        """Return pieces of so many rows each, as views."""
        ...

    def to_numpy(self, arrays: Sequence[ArrayT], dtype: type[np.generic]) -> list[NDArray[Any]]:
        """Copy arrays to numpy, from a device in one piece: each copy from there waits for it."""
        ...

    def segments(self, segments: Segments, like: ArrayT) -> SegmentArrays[ArrayT]:
        """Return the index arrays of some segments where `like` lies."""
        ...

    def batch(self, batch: Batch, like: ArrayT) -> BatchArrays[ArrayT]:
        """Return a batch's arrays where `like` lies."""
        ...


class _Numpy:
    def float32(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.astype(np.float32, copy=False)

    def concatenate(self, arrays: Sequence[NDArray[Any]], *, axis: int = 0) -> NDArray[Any]:
        return np.concatenate(arrays, axis=axis)

    def normalize(self, rows: NDArray[Any]) -> NDArray[Any]:
        norms = np.sqrt(np.square(rows).sum(axis=-1, keepdims=True))
        return cast("NDArray[Any]", rows / np.maximum(norms, SMALLEST_NORM))

    def softmax(self, rows: NDArray[Any]) -> NDArray[Any]:
        if not rows.size:
            return rows
        exp = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return cast("NDArray[Any]", exp / exp.sum(axis=-1, keepdims=True))

    def sigmoid(self, rows: NDArray[Any]) -> NDArray[Any]:
        # exp of a large number overflows, of a small one it does not
        exp = np.exp(-np.abs(rows))
        squashed: NDArray[Any] = np.where(rows >= 0, 1 / (1 + exp), exp / (1 + exp)).astype(rows.dtype)
        return squashed

    def segment_sum(self, rows: NDArray[Any], segments: SegmentArrays[NDArray[Any]]) -> NDArray[Any]:
        return self._reduce(np.add, rows, segments, nothing=0)

    def segment_max(self, rows: NDArray[Any], segments: SegmentArrays[NDArray[Any]]) -> NDArray[Any]:
        return self._reduce(np.maximum, rows, segments, nothing=-np.inf)

    def where(self, condition: NDArray[Any], first: NDArray[Any], second: NDArray[Any] | float) -> NDArray[Any]:
        return np.where(condition, first, second).astype(first.dtype, copy=False)

    def select(self, rows: NDArray[Any], is_selected: NDArray[np.bool_]) -> NDArray[Any]:
        return rows[is_selected]

    def take(self, rows: NDArray[Any], index: NDArray[np.integer]) -> NDArray[Any]:
        return rows.take(index, axis=0)

    def product(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        product: NDArray[Any] = (self.float32(right) @ self.float32(left).T).T  # whole columns: segment_max is faster
        return product

    def is_finite(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.array([np.isfinite(array).all()], np.float32)

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.astype(np.float32)

    def split(self, rows: NDArray[Any], lengths: Sequence[int]) -> Sequence[NDArray[Any]]:
        return [rows[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]

    def to_numpy(self, arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> list[NDArray[Any]]:
        return [array.astype(dtype) for array in arrays]

    def segments(self, segments: Segments, like: NDArray[Any]) -> SegmentArrays[NDArray[Any]]:  # noqa: ARG002
        return segments.arrays

    def batch(self, batch: Batch, like: NDArray[Any]) -> BatchArrays[NDArray[Any]]:  # noqa: ARG002
        return batch.arrays

    def _reduce(
        self, ufunc: np.ufunc, rows: NDArray[Any], segments: SegmentArrays[NDArray[Any]], *, nothing: float
    ) -> NDArray[Any]:
        has_rows = segments.lengths > 0
        if has_rows.all() and len(has_rows):
            return ufunc.reduceat(rows, segments.starts, axis=0)
        reduced = np.full((len(segments.lengths), *rows.shape[1:]), nothing, rows.dtype)
        if has_rows.any():
            reduced[has_rows] = ufunc.reduceat(rows, segments.starts[has_rows], axis=0)
        return reduced


class _Torch:
    def float32(self, array: torch.Tensor) -> torch.Tensor:
        return array.float()

    def concatenate(self, arrays: Sequence[torch.Tensor], *, axis: int = 0) -> torch.Tensor:
        import torch

        return torch.cat(list(arrays), dim=axis)

    def normalize(self, rows: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import normalize

        return normalize(rows, dim=-1)

    def softmax(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.softmax(dim=-1)

    def sigmoid(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.sigmoid()

    def segment_sum(self, rows: torch.Tensor, segments: SegmentArrays[torch.Tensor]) -> torch.Tensor:
        sums = rows.new_zeros(len(segments.lengths), *rows.shape[1:])
        return sums.index_add_(0, segments.segment_ids, rows)

    def segment_max(self, rows: torch.Tensor, segments: SegmentArrays[torch.Tensor]) -> torch.Tensor:
        import torch

        highest = rows.new_full((len(segments.lengths), rows.shape[1]), -torch.inf)
        return highest.scatter_reduce_(0, segments.segment_ids[:, None].expand_as(rows), rows, reduce="amax")

    def where(self, condition: torch.Tensor, first: torch.Tensor, second: torch.Tensor | float) -> torch.Tensor:
        return first.where(condition, second)

    def select(self, rows: torch.Tensor, is_selected: NDArray[np.bool_]) -> torch.Tensor:
        return self.take(rows, np.flatnonzero(is_selected))

    def take(self, rows: torch.Tensor, index: NDArray[np.integer]) -> torch.Tensor:
        import torch

        return rows.index_select(0, torch.from_numpy(index).to(rows.device))

    def product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left.float() @ right.float().T

    def is_finite(self, array: torch.Tensor) -> torch.Tensor:
        return array.isfinite().all().float().reshape(1)

    def copy(self, array: torch.Tensor) -> torch.Tensor:
        return array.float().clone()

    def split(self, rows: torch.Tensor, lengths: Sequence[int]) -> Sequence[torch.Tensor]:
        return rows.split(list(lengths))  # type: ignore[no-untyped-call, no-any-return]  # torch leaves it untyped

    def to_numpy(self, arrays: Sequence[torch.Tensor], dtype: type[np.generic]) -> list[NDArray[Any]]:
        import torch

        if not arrays:
            return []
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        flat = torch.cat([array.reshape(-1).to(kind) for array in arrays]).cpu().numpy()
        cuts = list(accumulate(prod(array.shape) for array in arrays))[:-1]
        return [part.reshape(tuple(array.shape)) for part, array in zip(np.split(flat, cuts), arrays, strict=True)]

    def segments(self, segments: Segments, like: torch.Tensor) -> SegmentArrays[torch.Tensor]:
        return segments.on(like.device)

    def batch(self, batch: Batch, like: torch.Tensor) -> BatchArrays[torch.Tensor]:
        return batch.on(like.device)


NUMPY: Operations[NDArray[Any]] = _Numpy()
TORCH: Operations[torch.Tensor] = _Torch()


def operations_of(array: ArrayT) -> Operations[ArrayT]:
    """Return the operations for an array of this kind."""
    return cast("Operations[ArrayT]", NUMPY if isinstance(array, np.ndarray) else TORCH)


def inference() -> AbstractContextManager[object]:
    """Return what numbers are computed under: torch's inference mode, where anything has imported torch."""
    if "torch" not in sys.modules:
        return nullcontext()
    import torch

    return torch.inference_mode()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether torch raised this because a batch does not fit."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
