"""The start-up check: random prompts of telling lengths, and how far the kernels' states are from transformers'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poolkit import Batch, Decision, ResolvedParams, Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from poolkit import ModelInfo
    from poolkit_plugins.cpu._library import DTypeName

__all__ = ["check_batch", "compare", "split_longest"]

TOLERANCE: dict[DTypeName, float] = {
    "float32": 1e-4,  # sums in another order are off by about 1e-6; one token too many in a window by 1e-2
    "bfloat16": 6e-2,  # rounding is 4e-3 an operation and adds up over the layers
    "int8": 0.5,  # one step is up to 1/127 of a token's largest number; wrong code is off by about 1.4
}
"""The largest error of one token's hidden state, divided by its length."""

LENGTHS = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 160)
"""At and beside the edges of tiles and blocks; 160 is past the distances that MPNet tells apart."""

LONGEST = 1024
WINDOW_SETTINGS = ("sliding_window", "local_attention")


def check_batch(info: ModelInfo, model: PreTrainedModel) -> Batch:
    """Return random tokens, none of them padding, in prompts of several lengths."""
    settings = model.config.get_text_config()
    windows = [width for name in WINDOW_SETTINGS if isinstance(width := getattr(settings, name, None), int)]
    longest = min(info.max_model_len, LONGEST)
    lengths = sorted({min(length, longest) for length in (*LENGTHS, *(2 * width + 1 for width in windows))})
    expansion = info.multi_vector and info.multi_vector.expansion
    cut = [(length + 1) // 2 for length in lengths] if expansion and not expansion.attends else []
    prompts = sorted([*zip(lengths, lengths, strict=True), *zip(lengths, cut, strict=False)])  # with what is attended
    segments = Segments.of([length for length, _ in prompts])
    dice = np.random.default_rng(0)
    token_ids = dice.integers(info.vocab_size, size=segments.tokens, dtype=np.int32)
    padding = getattr(settings, "pad_token_id", None)
    if padding is not None:
        token_ids[token_ids == padding] = (padding + 1) % info.vocab_size
    return Batch(
        token_ids,
        segments.cu_seqlens,
        np.zeros(len(segments), np.bool_),
        [ResolvedParams()] * len(segments),
        token_type_ids=dice.integers(2, size=segments.tokens, dtype=np.int32),
        attention_lengths=np.array([attended for _, attended in prompts], np.int32),
    )


def split_longest(batch: Batch) -> tuple[Batch, slice]:
    """Return the longest prompt in two halves, the second of which continues the first; and its rows in the batch."""
    start, end = batch.cu_seqlens[-2:].tolist()
    halves = Segments.of([(end - start) // 2, (end - start + 1) // 2])
    return (
        Batch(
            batch.token_ids[start:end],
            halves.cu_seqlens,
            batch.is_query[-2:],
            batch.params[-2:],
            prefixes=np.array([-1, 0], np.int32),
        ),
        slice(start, end),
    )


def compare(
    actual: NDArray[np.float32] | None, expected: NDArray[np.float32], batch: Batch, dtype: DTypeName
) -> tuple[Decision, ...] | str:
    """Return how far the kernels' states are off, or what the start-up report says of the dtype's loss."""
    assert actual is not None
    if actual.shape != expected.shape:
        return f"the kernels give shape {actual.shape}, transformers {expected.shape}"
    lengths = np.linalg.norm(expected, axis=1).clip(min=1e-12)
    worst, allowed = float((np.linalg.norm(actual - expected, axis=1) / lengths).max()), TOLERANCE[dtype]
    if not worst <= allowed:  # a NaN is no small difference
        return (
            f"the kernels differ from transformers by {worst:.1e} of a token vector's length, more than {allowed:.0e}"
        )
    return (_tell_loss(actual, expected, batch),) if dtype == "int8" else ()


def _tell_loss(actual: NDArray[np.float32], expected: NDArray[np.float32], batch: Batch) -> Decision:
    """Return the cosine with float32 of the check's prompts, each the mean of its tokens, and of its tokens."""
    starts, counts = batch.segments.arrays.starts, batch.segments.arrays.lengths[:, None]
    means = [np.add.reduceat(states, starts, axis=0) / counts for states in (actual, expected)]
    told = [
        f"{what} {cosines.mean():.4f} (worst {cosines.min():.4f})"
        for what, cosines in (("prompts", _cosines(*means)), ("tokens", _cosines(actual, expected)))
    ]
    return Decision("int8 loss", f"cosine with float32: {', '.join(told)}", "the self-check's random prompts")


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float32] = (one * other).sum(axis=1) / lengths.clip(min=1e-12)
    return cosines
