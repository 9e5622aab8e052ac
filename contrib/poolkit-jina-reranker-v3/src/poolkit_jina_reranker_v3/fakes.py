"""Stands in for a jina-reranker-v3 in `poolkit.testing`."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from poolkit import EncodedPrompt
from poolkit.testing import FAKE_MODEL, Fake, FakeTokenizer

__all__ = ["LISTWISE_FAKE"]

END_OF_DOCUMENT = "</passage>"


def _draw(prompt: EncodedPrompt) -> NDArray[np.float32]:
    """Return a vector for each document of the prompt, and one for the query. (documents + 1, dim)"""
    [[end]] = FakeTokenizer().encode_batch([END_OF_DOCUMENT], add_special_tokens=False)
    documents = list(prompt.token_ids).count(end)
    generator = np.random.default_rng(list(prompt.token_ids))
    return generator.standard_normal((documents + 1, FAKE_MODEL.hidden_size)).astype(np.float32)


LISTWISE_FAKE = Fake(
    model=replace(FAKE_MODEL, architecture="JinaForRanking", text=replace(FAKE_MODEL.text, max_model_len=8192)),
    draw=_draw,
)
"""Gives each document a vector, in prompts as long as the task's own words and some documents need."""
