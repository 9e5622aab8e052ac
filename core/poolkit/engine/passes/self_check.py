"""Decides at start-up how a model runs: packed if that gives what the plain padded pass gives, else padded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from poolkit.contract import EncodedPrompt, ResolvedParams
from poolkit.engine.heads.layers import TakeHidden, load_mix
from poolkit.engine.loading import quiet_transformers
from poolkit.engine.passes.attention import PACKED_ATTENTION, register_packed_attention
from poolkit.engine.passes.clip import clip_packed_pass
from poolkit.engine.passes.layout import lay_out
from poolkit.engine.passes.mpnet import mpnet_packed_pass
from poolkit.engine.passes.run import Pass, packed_pass, padded_pass, takes_token_types
from poolkit.engine.passes.segments import Batch
from poolkit.errors import ModelError
from poolkit.models import Decision, ModelInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.config import ModelConfig

__all__ = ["TOLERANCE", "check_batch", "choose_pass", "padding_id", "set_attention"]

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
def choose_pass(model: PreTrainedModel, info: ModelInfo, config: ModelConfig) -> tuple[Pass, Decision]:
    """Return how to run the model, and why.

    Raises ModelError where packed was asked for and the model cannot run so.
    """
    take = load_mix(info.pooling.layer_mix, device=model.device)
    padded = partial(
        padded_pass,
        model,
        pad_token_id=padding_id(model) or 0,
        max_tokens=config.max_num_batched_tokens,
        take=take,
    )
    if config.batching == "padded":
        return padded, Decision("path", "padded", "batching")

    batch = check_batch(model, info)
    expected = padded(batch)
    plain_attention = model.config._attn_implementation
    try:
        packed = _packed(model, info, take)
        problem = _difference(packed(batch), expected)
    except Exception as exc:  # noqa: BLE001 - whatever a model's code raises is a reason to run it padded
        is_told = isinstance(exc, NotImplementedError) and str(exc)  # by this package, in a sentence of its own
        problem = str(exc) if is_told else f"packed raised {type(exc).__name__}: {exc}"
    if problem is None:
        return packed, Decision("path", "packed", "the self-check: packed agrees with padded")
    if config.batching == "packed":
        raise ModelError(f"{info.name} cannot run packed: {problem}. Leave batching at 'auto', or set it to 'padded'.")
    set_attention(model, plain_attention)
    return padded, Decision("path", "padded", f"the self-check: {problem}")


def _packed(model: PreTrainedModel, info: ModelInfo, take: TakeHidden) -> Pass:
    if info.model_type == "mpnet":
        if info.pooling.layer_mix is not None:
            raise NotImplementedError("the packed pass of MPNet gives the last layer alone")
        return partial(mpnet_packed_pass, model, position_offset=info.text.position_offset)
    strange = set(getattr(model.config, "layer_types", None) or ()) - PACKED_LAYER_TYPES
    if strange:
        raise NotImplementedError(f"{type(model).__name__} has layers of type {', '.join(sorted(strange))}")
    register_packed_attention()
    set_attention(model, PACKED_ATTENTION)
    if model.config._attn_implementation != PACKED_ATTENTION:
        raise NotImplementedError(f"{type(model).__name__} has an attention of its own, which cannot be exchanged")
    if info.images is not None and info.images.expansion is not None:
        raise NotImplementedError("all texts have one length, so that there is no padding to save")
    if info.model_type == "clip":
        return partial(clip_packed_pass, model)
    return partial(packed_pass, model, position_offset=info.text.position_offset, take=take)


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
    batch, _ = lay_out(prompts, device=model.device, takes_types=takes_token_types(model))
    return batch


def padding_id(model: PreTrainedModel) -> int | None:
    """Return the id of the padding token, or None where the model has none."""
    found: int | None = getattr(model.config.get_text_config(), "pad_token_id", None)
    return found


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Let the model's attention run by the function that transformers knows by `name`."""
    with quiet_transformers():
        model.set_attn_implementation(name)


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Return how far the packed pass is off, or None if it gives what is expected."""
    if actual.shape != expected.shape:
        return f"packed gives shape {tuple(actual.shape)}, padded {tuple(expected.shape)}"
    error = (actual.float() - expected.float()).norm(dim=1) / expected.float().norm(dim=1).clamp_min(1e-12)
    worst, allowed = float(error.max()), TOLERANCE[expected.dtype]
    if worst <= allowed:
        return None
    return f"packed differs from padded by {worst:.1e} of a token vector's length, more than {allowed:.0e}"
