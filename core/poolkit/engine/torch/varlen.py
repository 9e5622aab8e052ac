"""Attention kernels for segments of any lengths at once, by the kind of device that has them.

They take all tokens as one row with the segments' `cu_seqlens`, so that a layer is one call whatever the lengths. The
CPU has none that is faster than going length by length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

import torch

__all__ = ["VarlenAttention", "find_varlen", "with_flash_attn", "with_torch"]

HALF = frozenset((torch.float16, torch.bfloat16))
"""The dtypes that flash attention has kernels for."""


class VarlenAttention(Protocol):
    """Attends in segments of any lengths."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens: torch.Tensor,
        longest: int,
        *,
        scale: float | None,
        window: tuple[int, int],
    ) -> torch.Tensor:
        """Return the attended values. (tokens, heads, dim)

        Args:
            query: (tokens, heads, dim)
            key: (tokens, key heads, dim); fewer heads than the query has are shared by groups of them.
            value: (tokens, key heads, dim)
            cu_seqlens: where each segment starts, and where the last one ends. (segments + 1,), int32
            longest: tokens of the longest segment.
            scale: what scores are multiplied by; 1 / sqrt(dim) where None.
            window: how many tokens to the left and to the right a token sees beside itself; -1 for all.
        """
        ...


def find_varlen(device: torch.device, dtype: torch.dtype) -> VarlenAttention | None:
    """Return the fastest such kernel that is installed for a device, or None where there is none."""
    if dtype not in HALF:
        return None
    found = (find() for find in FINDERS.get(device.type, ()))
    return next((kernel for kernel in found if kernel is not None), None)


def with_torch(varlen_attn: Callable[..., torch.Tensor]) -> VarlenAttention:
    """Return torch's own kernel, as `torch.nn.attention.varlen.varlen_attn` runs it."""

    def options(scale: float | None, window: tuple[int, int], shares_keys: bool) -> Mapping[str, object]:
        # With one split, sums do not depend on what else is in the batch. It also pins flash attention: from 2.14 on
        # torch takes cuDNN wherever that can run, which is several times slower here (pytorch/pytorch#187770), and
        # cuDNN cannot be told how to split.
        return {"scale": scale, "window_size": window, "enable_gqa": shares_keys, "num_splits": 1}

    return _attention(varlen_attn, options)


def with_flash_attn(flash_attn_varlen_func: Callable[..., torch.Tensor]) -> VarlenAttention:
    """Return the kernel of the distribution `flash-attn`, as `flash_attn.flash_attn_varlen_func` runs it."""

    def options(scale: float | None, window: tuple[int, int], _: bool) -> Mapping[str, object]:
        return {"softmax_scale": scale, "causal": window[1] == 0, "window_size": window}

    return _attention(flash_attn_varlen_func, options)


def _attention(
    kernel: Callable[..., torch.Tensor],
    options: Callable[[float | None, tuple[int, int], bool], Mapping[str, object]],
) -> VarlenAttention:
    """Return a kernel that takes `cu_seqlens` of queries and of keys, with its own options of scale, window, GQA."""

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens: torch.Tensor,
        longest: int,
        *,
        scale: float | None,
        window: tuple[int, int],
    ) -> torch.Tensor:
        own = options(scale, window, key.shape[1] != query.shape[1])
        return kernel(query, key, value, cu_seqlens, cu_seqlens, longest, longest, **own)

    return attend


def _find_flash_attn() -> VarlenAttention | None:
    try:
        flash_attn = import_module("flash_attn")
    except ImportError:
        return None
    return with_flash_attn(flash_attn.flash_attn_varlen_func)


def _find_torch() -> VarlenAttention | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    return with_torch(cast("Callable[..., torch.Tensor]", varlen_attn))  # it returns more only where asked to


FINDERS: Mapping[str, Sequence[Callable[[], VarlenAttention | None]]] = {"cuda": (_find_flash_attn, _find_torch)}
"""Where to look for a kernel, by the type of the device: the fastest first."""
