"""Stands in for a SPLADE model in `poolkit.testing`."""

import numpy as np

from poolkit import EncodedPrompt, PooledOutput
from poolkit.testing import FAKE_MODEL, Fake

__all__ = ["SPLADE_FAKE"]


def _draw(prompt: EncodedPrompt) -> PooledOutput:
    """Return a weight for each token of the prompt, and for one that it does not hold."""
    expansion = sum(prompt.token_ids) % FAKE_MODEL.vocab_size
    token_ids = np.unique([*prompt.token_ids, expansion]).astype(np.int32)
    weights = np.random.default_rng(list(prompt.token_ids)).random(len(token_ids)).astype(np.float32)
    return PooledOutput(weights, prompt.token_ids, indices=token_ids)


SPLADE_FAKE = Fake(draw=_draw)
"""Gives each token of a prompt a weight."""
