"""Stands in for a BGE-M3 in `poolkit.testing`."""

import numpy as np

from poolkit import EncodedPrompt, PooledOutput
from poolkit.testing import FAKE_MODEL, Fake
from poolkit_bge_m3.parts import MULTI_VECTOR, TOKEN_WEIGHTS

__all__ = ["BGE_M3_FAKE"]


def _draw(prompt: EncodedPrompt) -> PooledOutput:
    """Return a vector, with a weight for each token id and a vector for each token."""
    tokens, width = len(prompt.token_ids), FAKE_MODEL.hidden_size
    numbers = np.random.default_rng(list(prompt.token_ids)).standard_normal((1 + tokens, 1 + width)).astype(np.float32)
    vectors, token_ids = numbers[2:, 1:], np.unique(prompt.token_ids).astype(np.int32)
    return PooledOutput(
        numbers[0, 1:],
        prompt.token_ids,
        {
            TOKEN_WEIGHTS: np.abs(numbers[1 : 1 + len(token_ids), 0]),
            MULTI_VECTOR: vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        },
        part_indices={TOKEN_WEIGHTS: token_ids},
    )


BGE_M3_FAKE = Fake(draw=_draw)
"""Gives the three outputs of the head, in `FAKE_MODEL`'s width."""
