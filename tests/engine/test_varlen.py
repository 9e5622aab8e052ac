"""Attention over segments of any lengths in one call, as a GPU has it; plain stand-ins check what a kernel is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch.nn.attention.varlen import AuxRequest, varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from closeness import assert_close
from engines import load_engine
from poolkit.contract import Batch, EncodedPrompt, ResolvedParams
from poolkit.engine.batch import lay_out
from poolkit.engine.torch.attention import PACKED_ATTENTION, register_packed_attention
from poolkit.engine.torch.forward import load_take, packed_forward, padded_forward
from poolkit.engine.torch.loading import Placement, load_weights
from poolkit.engine.torch.varlen import VarlenAttention, find_varlen, with_flash_attn, with_torch
from reading import read

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = (3, 1, 40, 7, 7, 90)


def plain_varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: AuxRequest | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """`varlen_attn`, a segment at a time."""
    assert num_splits == 1, "from torch 2.14 on it may be cuDNN that runs"
    assert (return_aux, seqused_k, block_table) == (None, None, None)
    assert cu_seq_k is not None
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return _attend(query, key, value, (cu_seq_q, cu_seq_k), (max_q, max_k), scale, window_size)


def plain_flash_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """`flash_attn.flash_attn_varlen_func`, a segment at a time."""
    assert dropout_p == 0
    window = (window_size[0], 0) if causal else window_size
    return _attend(q, k, v, (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k), softmax_scale, window)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    longest: tuple[int, int],
    scale: float | None,
    window: tuple[int, int],
) -> torch.Tensor:
    """Attend as the kernels' documentation says. (tokens, heads, dim)"""
    for cu_seqlens, most in zip(bounds, longest, strict=True):
        assert cu_seqlens.dtype == torch.int32
        assert (int(cu_seqlens[0]), int(cu_seqlens[-1])) == (0, len(query))
        assert int(cu_seqlens.diff().max()) == most
    left, right = (len(query) if reach < 0 else reach for reach in window)
    parts = []
    for start, end in pairwise(bounds[0].tolist()):
        places = torch.arange(end - start)
        ahead = places[None, :] - places[:, None]  # (length, length), key minus query
        q, k, v = (states[start:end].transpose(0, 1)[None] for states in (query, key, value))  # (1, heads, length, dim)
        mask = (ahead >= -left) & (ahead <= right)
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)[0])
    return torch.cat(parts, dim=1).transpose(0, 1)


KERNELS = {"torch": with_torch(plain_varlen_attn), "flash-attn": with_flash_attn(plain_flash_attn)}


def test_the_stand_in_takes_what_torchs_kernel_takes():
    assert [(name, one.kind, one.default) for name, one in inspect.signature(plain_varlen_attn).parameters.items()] == [
        (name, one.kind, one.default) for name, one in inspect.signature(varlen_attn).parameters.items()
    ]


@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3", "qwen3_sliding", "gemma3"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_all_segments_at_once_give_what_padded_rows_give(family, kernel, checkpoint):
    """Full attention, windows, causal attention, both of these, and keys shared by groups of heads."""
    calls: list[tuple[int, int]] = []

    def counted(*args: object, window: tuple[int, int], **settings: object) -> torch.Tensor:
        calls.append(window)
        return KERNELS[kernel](*args, window=window, **settings)  # type: ignore[arg-type]  # passed on as they are

    actual, expected, layers = _both_ways(checkpoint(family), counted)
    assert_close(actual, expected)
    assert len(calls) == layers


def test_where_some_tokens_are_not_seen_it_goes_length_by_length(checkpoint):
    def never(*_args: object, **_settings: object) -> torch.Tensor:
        raise AssertionError

    actual, expected, _ = _both_ways(checkpoint("bert"), never, attended=2)
    assert_close(actual, expected)


def test_there_is_a_kernel_for_half_precision_on_a_gpu_alone(checkpoint):
    assert find_varlen(torch.device("cpu"), torch.bfloat16) is None
    assert find_varlen(torch.device("cuda"), torch.float32) is None
    assert find_varlen(torch.device("cuda"), torch.bfloat16) is not None
    assert load_engine(checkpoint("bert"), dtype="bfloat16").decisions[-1].value == "packed"


@torch.inference_mode()
def _both_ways(
    folder: object, kernel: VarlenAttention | Callable[..., torch.Tensor], *, attended: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return the token vectors with the kernel and of padded rows, and the number of layers."""
    info = read(folder, dtype="float32")
    model = load_weights(info, Placement.resolve(info.config))
    take, batch = load_take(info, (), device=model.device), _batch(attended)
    expected = padded_forward(model, batch, pad_token_id=0, max_tokens=4096, take=take)
    register_packed_attention()
    model.set_attn_implementation(PACKED_ATTENTION)
    actual = packed_forward(model, batch, position_offset=info.text.position_offset, take=take, varlen=kernel)
    return actual.tokens, expected.tokens, model.config.num_hidden_layers


def _batch(attended: int | None) -> Batch:
    dice = torch.Generator().manual_seed(0)
    prompts = [
        EncodedPrompt(
            torch.randint(5, 800, (length,), generator=dice).int().numpy(),
            ResolvedParams(),
            attention_length=None if attended is None else min(attended, length),
        )
        for length in LENGTHS
    ]
    return lay_out(prompts)[0]
