"""A decoder that its config makes bidirectional lets each token see those after it, packed as padded."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from checkpoints import make_checkpoint
from engines import TOLERANCE, largest_difference, load_engine, run, texts_and_ids

BIDIRECTIONAL = [
    ("qwen3", {"is_causal": False}),
    ("llama", {"is_causal": False}),
    ("gemma3", {"use_bidirectional_attention": True}),
]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize(("family", "overrides"), BIDIRECTIONAL)
def test_a_bidirectional_decoder_gives_the_references_vectors(tmp_path, family, overrides, batching):
    folder = make_checkpoint(tmp_path / family, family, pooling=["mean"], **overrides)
    texts, ids = texts_and_ids(folder, 20)
    vectors = run(load_engine(folder, batching=batching), ids)
    assert largest_difference(vectors, SentenceTransformer(str(folder), device="cpu").encode(texts)) <= TOLERANCE


@pytest.mark.usefixtures("one_thread")
def test_an_override_makes_a_decoder_bidirectional(tmp_path):
    folder = make_checkpoint(tmp_path / "causal", "qwen3", pooling=["mean"])
    expected = make_checkpoint(tmp_path / "bidirectional", "qwen3", pooling=["mean"], is_causal=False)
    _, ids = texts_and_ids(folder, 5)
    overridden = run(load_engine(folder, hf_overrides={"is_causal": False}, batching="packed"), ids)
    assert largest_difference(overridden, np.stack(run(load_engine(expected), ids))) <= TOLERANCE
    assert largest_difference(overridden, np.stack(run(load_engine(folder), ids))) > 0.01
