"""What stands in for a SPLADE model in `poolkit.testing`."""

import numpy as np
from numpy.typing import NDArray

from poolkit import EncodedPrompt
from poolkit.testing import FAKE_MODEL, Fake

__all__ = ["SPLADE_FAKE"]


def _draw(prompt: EncodedPrompt) -> NDArray[np.float32]:
    """Return a weight for each token of the prompt, and for one that it does not hold. (tokens, 2)"""
    expansion = sum(prompt.token_ids) % FAKE_MODEL.vocab_size
    token_ids = np.unique([*prompt.token_ids, expansion])
    weights = np.random.default_rng(list(prompt.token_ids)).random(len(token_ids))
    return np.stack([token_ids, weights], axis=1).astype(np.float32)


SPLADE_FAKE = Fake(draw=_draw)
"""Gives each token of a prompt a weight."""
