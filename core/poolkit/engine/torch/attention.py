"""Attention over a packed batch: each segment attends to itself alone, without a mask for the whole batch.

transformers lets a model run any attention function that was registered under a name. Ours is `attend`. It is given the
batch through the model's own keyword arguments, so that no state lives outside the call. It reads the arguments that
models pass and leaves the work to one of two functions, which see whole tensors of the batch and nothing of the model:
a kernel for segments of any lengths where the device has one (`varlen`), and `attend_by_length` everywhere else, also
for families whose layers pass a bias of their own. What changes which keys a query sees belongs into the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from poolkit.engine.torch.batch import LengthGroup, PackedBatch

__all__ = ["BATCH_ARGUMENT", "PACKED_ATTENTION", "attend", "attend_by_length", "register_packed_attention"]

PACKED_ATTENTION = "poolkit_packed"
BATCH_ARGUMENT = "poolkit_batch"

HARMLESS_ARGUMENTS = frozenset(
    ("deterministic", "output_attentions", "output_hidden_states", "position_ids", "return_dict", "use_cache")
)
"""Arguments that models pass along and that do not change the result of attention."""


def register_packed_attention() -> None:
    """Make `PACKED_ATTENTION` known to transformers. No mask function goes with it, so that models build no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_ATTENTION, attend)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attend inside each segment. The signature is transformers'.

    Args:
        module: the attention layer; says whether it is causal where the caller does not.
        query: (1, heads, rows, dim)
        key: (1, key heads, rows, dim); fewer heads than the query has are shared by groups of them.
        value: (1, key heads, rows, dim)
        attention_mask: none; the batch takes its place.
        scaling: what scores are multiplied by; 1 / sqrt(dim) where None.
        dropout: 0; this is inference.
        is_causal: whether a token sees only itself and those before it.
        sliding_window: tokens this far apart or more do not see each other (flash-attention's convention).
        others: the batch. Anything else that would change the answer is refused.

    Returns the attended values, (1, rows, heads, dim), and None for the weights.
    """
    batch: PackedBatch = others.pop(BATCH_ARGUMENT)  # type: ignore[assignment]  # the packed pass put it there
    refused = [name for name, given in others.items() if given is not None and name not in HARMLESS_ARGUMENTS]
    if attention_mask is not None or dropout or refused:
        raise NotImplementedError(f"packed attention does not take {', '.join(refused) or 'a mask or dropout'}")
    if is_causal is None:
        # A decoder made bidirectional says so in its config; transformers honours that where it builds the mask.
        is_causal = bool(getattr(module, "is_causal", True)) and getattr(module.config, "is_causal", True) is not False

    if batch.varlen is not None and batch.cu_seqlens is not None:
        width = -1 if sliding_window is None else sliding_window - 1  # how far it reaches, the token itself aside
        attended = batch.varlen(
            query[0].transpose(0, 1),  # (tokens, heads, dim)
            key[0].transpose(0, 1),  # (tokens, key heads, dim)
            value[0].transpose(0, 1),  # (tokens, key heads, dim)
            batch.cu_seqlens,
            batch.groups[-1].length,
            scale=scaling,
            window=(width, 0 if is_causal else width),
        )  # (tokens, heads, dim)
        return attended[None], None
    if not is_causal and any(group.prefix is not None for group in batch.groups):
        raise NotImplementedError("prefixes are for causal attention: here their tokens see those behind them")
    masks = [batch.mask(group, width=sliding_window, is_causal=is_causal) for group in batch.groups]
    return attend_by_length(query, key, value, batch, masks=masks, scaling=scaling, is_causal=is_causal), None


def attend_by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    batch: PackedBatch,
    *,
    masks: Sequence[torch.Tensor | None],
    scaling: float | None = None,
    is_causal: bool = False,
) -> torch.Tensor:
    """Attend inside each segment and to the one that it continues, those of one length at a time.

    Args:
        query: (1, heads, rows, dim)
        key: (1, key heads, rows, dim)
        value: (1, key heads, rows, dim)
        batch: whose segments they are.
        masks: which tokens of each group's segments see each other, or what is added to their scores; None where all
            do, or all before them if causal.
        scaling: what scores are multiplied by; 1 / sqrt(dim) where None.
        is_causal: True if a token sees only itself and those before it, where there is no mask.

    Returns the attended values, zeros in filler rows. (1, rows, heads, dim)
    """
    shares_keys = key.shape[1] != query.shape[1]
    attended = query.new_empty(batch.rows, query.shape[1], value.shape[3])  # (rows, heads, dim)
    attended[batch.tokens :] = 0
    for group, mask in zip(batch.groups, masks, strict=True):
        out = scaled_dot_product_attention(
            _rectangle(query, group),
            _behind_prefix(key, group),
            _behind_prefix(value, group),
            attn_mask=mask,
            is_causal=is_causal and mask is None,
            scale=scaling,
            enable_gqa=shares_keys,
        )  # (count, heads, length, dim)
        attended[group.start : group.stop] = out.transpose(1, 2).flatten(0, 1)  # (count * length, heads, dim)
    return attended[None]


def _rectangle(states: torch.Tensor, group: LengthGroup) -> torch.Tensor:
    """Return the view (count, heads, length, dim) of a group's part of (1, heads, rows, dim)."""
    part = states[0, :, group.start : group.stop]  # (heads, count * length, dim)
    return part.view(len(part), group.count, group.length, -1).transpose(0, 1)  # (count, heads, length, dim)


def _behind_prefix(states: torch.Tensor, group: LengthGroup) -> torch.Tensor:
    """Return the rectangle of a group with the rows of its prefix before it. (count, heads, keys, dim)"""
    own = _rectangle(states, group)
    if group.prefix is None:
        return own
    start, stop = group.prefix
    return torch.cat([states[:, :, start:stop].expand(group.count, -1, -1, -1), own], dim=2)
