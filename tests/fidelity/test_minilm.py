"""The packaged MiniLM, with real weights, answers what sentence-transformers answers."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from engines import TOLERANCE, decision, largest_difference, load_engine, run, run_in_batches, texts_and_ids

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.timeout(300)
def test_minilm_answers_as_sentence_transformers_does(minilm):
    engine = load_engine(minilm)
    assert decision(engine, "path")[0] == "packed"
    texts, prompts = texts_and_ids(minilm, 500)
    reference = SentenceTransformer(str(minilm), device="cpu").encode(texts)

    assert largest_difference(run_in_batches(engine, prompts, size=100), reference) <= TOLERANCE
    assert largest_difference(run_in_batches(engine, prompts, size=1), reference) <= TOLERANCE
    padded = load_engine(minilm, batching="padded", max_num_batched_tokens=2048)
    assert largest_difference(run_in_batches(padded, prompts, size=100), reference) <= TOLERANCE


def test_minilm_in_bfloat16_points_where_it_points_in_float32(minilm):
    engine = load_engine(minilm)
    _, prompts = texts_and_ids(minilm, 40)
    half = load_engine(minilm, dtype="bfloat16")
    assert decision(half, "path")[0] == "packed"
    cosines = (np.stack(run(engine, prompts)) * np.stack(run(half, prompts))).sum(axis=1)
    assert cosines.min() >= 0.999
