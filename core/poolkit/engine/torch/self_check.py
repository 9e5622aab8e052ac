"""Decides at start-up how a model runs: packed if that gives what the plain padded pass gives, else padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from poolkit.contract import Decision, EncodedPrompt, ModelInfo, ResolvedParams
from poolkit.engine.batch import lay_out
from poolkit.engine.prefixes import share_prefixes
from poolkit.engine.torch.attention import PACKED_ATTENTION, register_packed_attention
from poolkit.engine.torch.forward import (
    Forward,
    RunPacked,
    SharesPrefixes,
    load_take,
    packed_forward,
    padded_forward,
    run_packed,
)
from poolkit.engine.torch.loading import quiet_transformers
from poolkit.engine.torch.prepack import prepack
from poolkit.engine.torch.varlen import find_varlen
from poolkit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.contract import Batch, States

__all__ = ["TOLERANCE", "check_batch", "choose_forward", "padding_id", "refuse_packed", "set_attention"]

TOLERANCE = {
    torch.float32: 1e-4,  # sums in another order are off by about 1e-6; one token too many in a window by 1e-2
    torch.float16: 1e-2,  # rounding is 5e-4 an operation and adds up over the layers
    torch.bfloat16: 6e-2,  # rounding is 4e-3 an operation and adds up over the layers
}
"""The largest error of one token's hidden state, divided by its length; of a logit, divided by the largest."""

LONGEST_CHECKED = 1024
LENGTHS = (1, 5, 5, 23, 160)  # two of one length share a run; 160 is past the distances that MPNet tells apart
WINDOW_SETTINGS = ("sliding_window", "local_attention")
PACKED_LAYER_TYPES = frozenset(("full_attention", "sliding_attention"))


@torch.inference_mode()
def choose_forward(
    model: PreTrainedModel,
    info: ModelInfo,
    *,
    taps: Sequence[int] = (),
    run: RunPacked | None = None,
    exchanges_attention: bool = False,
) -> tuple[Forward, Decision]:
    """Return how to run the model, and why.

    Args:
        model: the base.
        info: what the model's files say.
        taps: layers whose hidden states are needed beside the last one's.
        run: runs a packed batch in a way of the family's own; None for the usual one. What it says in a
            NotImplementedError is why the model cannot run so.
        exchanges_attention: put packed attention in the place of the model's for `run` too.

    Raises ModelError where packed was asked for and the model cannot run so.
    """
    take = load_take(info, taps, device=model.device)
    padded = partial(
        padded_forward,
        model,
        pad_token_id=padding_id(model) or 0,
        max_tokens=info.config.max_num_batched_tokens,
        take=take,
    )
    batch = check_batch(model, info)
    if info.config.batching == "padded":
        if taps:
            padded(batch)  # raises where the model has no such layer
        return padded, Decision("path", "padded", "batching")

    expected = padded(batch)
    plain_attention = model.config._attn_implementation
    packed = partial(packed_forward, model, position_offset=info.text.position_offset, take=take, run=run or run_packed)

    def prepare() -> Forward:
        if exchanges_attention or run is None:
            _exchange_attention(model)
        return packed

    problem = _problem(prepare, batch, expected)
    if problem is not None:
        refuse_packed(info, problem)
        set_attention(model, plain_attention)
        return padded, Decision("path", "padded", f"the self-check: {problem}")
    source = "the self-check: packed agrees with padded"
    varlen = find_varlen(model.device, model.dtype)
    if varlen is not None:
        at_once = partial(packed, varlen=varlen)
        problem = _problem(lambda: at_once, batch, expected)
        packed = at_once if problem is None else packed
        source += f", segments {'at once' if problem is None else f'by length ({problem})'}"
    source += _prepack(model, packed, batch, expected)
    if _shares_prefixes(packed, batch):
        return SharesPrefixes(packed), Decision("path", "packed", f"{source}, common starts of prompts once")
    return packed, Decision("path", "packed", source)


def _prepack(model: PreTrainedModel, packed: Forward, batch: Batch, expected: States[torch.Tensor]) -> str:
    """Prepack the weights if that agrees too. Returns what to add to the report."""
    put_back: Callable[[], None] | None = None

    def prepare() -> Forward:
        nonlocal put_back
        put_back = prepack(model, lambda: packed(batch))
        return packed

    problem = _problem(prepare, batch, expected)
    if problem is not None:
        if put_back is not None:
            put_back()
        return f", weights not prepacked ({problem})"
    return "" if put_back is None else ", weights prepacked"


def _shares_prefixes(forward: Forward, batch: Batch) -> bool:
    """Return whether prompts that begin alike come out the same where their start is run once."""
    longest = batch.token_ids[-batch.segments.sizes[-1] :]
    half = len(longest) // 2  # so that none is longer than what was checked before
    texts = [np.concatenate([longest[:half], ids[:half]]) for ids in batch.segments.split(batch.token_ids)]
    prompts = [EncodedPrompt(ids, ResolvedParams()) for ids in texts]
    whole, _ = lay_out(prompts)
    shared = share_prefixes(whole)
    if shared is None:
        return False  # the model takes no prompts that are long enough
    try:
        actual = shared.whole(forward(shared.batch))  # first: a model that is not causal says so in its first layer
        return _difference(actual, forward(whole)) is None
    except Exception:  # noqa: BLE001 - whatever a model's code raises is a reason not to run it so
        return False


def _problem(prepare: Callable[[], Forward], batch: Batch, expected: States[torch.Tensor]) -> str | None:
    """Return why a way to run the model is no good, or None if it gives what is expected."""
    try:
        return _difference(prepare()(batch), expected)
    except Exception as exc:  # noqa: BLE001 - whatever a model's code raises is a reason not to run it so
        is_told = isinstance(exc, NotImplementedError) and str(exc)  # by this package, in a sentence of its own
        return str(exc) if is_told else f"packed raised {type(exc).__name__}: {exc}"


def refuse_packed(info: ModelInfo, problem: str) -> None:
    """Raise ModelError where packed was asked for."""
    if info.config.batching == "packed":
        raise ModelError(f"{info.name} cannot run packed: {problem}. Leave batching at 'auto', or set it to 'padded'.")


def _exchange_attention(model: PreTrainedModel) -> None:
    unknown = set(getattr(model.config, "layer_types", None) or ()) - PACKED_LAYER_TYPES
    if unknown:
        raise NotImplementedError(f"{type(model).__name__} has layers of type {', '.join(sorted(unknown))}")
    register_packed_attention()
    set_attention(model, PACKED_ATTENTION)
    if model.config._attn_implementation != PACKED_ATTENTION:
        raise NotImplementedError(f"{type(model).__name__} has an attention of its own, which cannot be exchanged")


def check_batch(model: PreTrainedModel, info: ModelInfo) -> Batch:
    """Return random tokens in sequences of such lengths as show whether they keep apart."""
    windows = [width for name in WINDOW_SETTINGS if isinstance(width := getattr(model.config, name, None), int)]
    longest = min(info.max_model_len, LONGEST_CHECKED)
    lengths = [min(length, longest) for length in (*LENGTHS, *(2 * width + 1 for width in windows))]
    dice = torch.Generator().manual_seed(0)
    ids = [torch.randint(info.vocab_size, (length,), generator=dice) for length in lengths]
    pad_token_id = padding_id(model)
    if pad_token_id is not None:
        # Some models leave padding ids out of their count of positions.
        ids = [torch.where(row == pad_token_id, (pad_token_id + 1) % info.vocab_size, row) for row in ids]
    types = [torch.randint(2, (length,), generator=dice) for length in lengths]
    prompts = [
        EncodedPrompt(row.int().numpy(), ResolvedParams(), kinds.int().numpy())
        for row, kinds in zip(ids, types, strict=True)
    ]
    expansion = info.multi_vector and info.multi_vector.expansion
    if expansion and not expansion.attends:
        prompts += [replace(prompt, attention_length=(len(prompt.token_ids) + 1) // 2) for prompt in prompts]
    batch, _ = lay_out(prompts)
    return batch


def padding_id(model: PreTrainedModel) -> int | None:
    """Return the id of the padding token, or None where the model has none."""
    found: int | None = getattr(model.config.get_text_config(), "pad_token_id", None)
    return found


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Let the model's attention run by the function that transformers knows by `name`."""
    with quiet_transformers():
        model.set_attn_implementation(name)


def _difference(actual: States[torch.Tensor], expected: States[torch.Tensor]) -> str | None:
    """Return how far the packed hidden states are off, or None if they are what is expected."""
    assert actual.tokens is not None
    assert expected.tokens is not None
    pairs = [(actual.tokens, expected.tokens), *((actual.taps[tap], expected.taps[tap]) for tap in expected.taps)]
    return next((problem for pair in pairs if (problem := _difference_of(*pair))), None)


def _difference_of(actual: torch.Tensor, expected: torch.Tensor) -> str | None:
    if actual.shape != expected.shape:
        return f"packed gives shape {tuple(actual.shape)}, padded {tuple(expected.shape)}"
    error = (actual.float() - expected.float()).norm(dim=1) / expected.float().norm(dim=1).clamp_min(1e-12)
    worst, allowed = float(error.max()), TOLERANCE[expected.dtype]
    if worst <= allowed:
        return None
    return f"packed differs from padded by {worst:.1e} of a token vector's length, more than {allowed:.0e}"
