"""poolkit answers what sentence-transformers answers, on every path, alone and in any batch."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from checkpoints import FAMILIES, real_texts
from engines import decision, load_engine, run

LONGEST = 256
TOLERANCE = 1e-5  # float32 sums in another order; measured 6e-7 at most
PATHS = {family: "padded" if family == "deberta" else "packed" for family in FAMILIES}


def texts_and_ids(engine, count):
    """Return `count` real texts of 1 to 256 tokens, shuffled, and their token ids."""
    texts = real_texts(2 * count)
    pairs = [
        (text, ids)
        for text, ids in zip(texts, engine.tokenizer.encode_batch(texts, add_special_tokens=True), strict=True)
        if 1 <= len(ids) <= LONGEST
    ][:count]
    assert len(pairs) == count
    Random(1).shuffle(pairs)
    return [text for text, _ in pairs], [ids for _, ids in pairs]


def run_in_batches(engine, prompts, *, size):
    return np.stack([vector for i in range(0, len(prompts), size) for vector in run(engine, prompts[i : i + size])])


def largest_difference(vectors, reference):
    return float(np.abs(np.stack(vectors) - reference).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_answers_as_sentence_transformers_does(checkpoint, family):
    folder = checkpoint(family)
    engine = load_engine(folder)
    assert decision(engine, "path")[0] == PATHS[family]
    texts, prompts = texts_and_ids(engine, 500)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)

    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE
    assert largest_difference(run_in_batches(engine, prompts, size=7), reference) <= TOLERANCE
    assert largest_difference(run_in_batches(engine, prompts, size=1), reference) <= TOLERANCE
    padded = load_engine(folder, batching="padded", max_num_batched_tokens=2048)
    assert largest_difference(run(padded, prompts), reference) <= TOLERANCE


@pytest.mark.timeout(300)
def test_minilm_answers_as_sentence_transformers_does(minilm):
    engine = load_engine(minilm)
    assert decision(engine, "path") == ("packed", "the self-check: packed agrees with padded")
    texts, prompts = texts_and_ids(engine, 500)
    reference = SentenceTransformer(str(minilm), device="cpu").encode(texts)

    assert largest_difference(run_in_batches(engine, prompts, size=100), reference) <= TOLERANCE
    assert largest_difference(run_in_batches(engine, prompts, size=1), reference) <= TOLERANCE
    padded = load_engine(minilm, batching="padded", max_num_batched_tokens=2048)
    assert largest_difference(run_in_batches(padded, prompts, size=100), reference) <= TOLERANCE


def test_minilm_in_bfloat16_points_where_it_points_in_float32(minilm):
    _, prompts = texts_and_ids(engine := load_engine(minilm), 40)
    half = load_engine(minilm, dtype="bfloat16")
    assert decision(half, "path")[0] == "packed"
    cosines = (np.stack(run(engine, prompts)) * np.stack(run(half, prompts))).sum(axis=1)
    assert cosines.min() >= 0.999


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.parametrize("pooling", [*([mode] for mode in MODES), MODES], ids="+".join)
@pytest.mark.parametrize("dense", [None, 20])
def test_every_pooling_mode_and_a_dense_layer_answer_as_in_sentence_transformers(checkpoint, pooling, dense):
    folder = checkpoint("bert", pooling=pooling, dense=dense)
    engine = load_engine(folder)
    texts, prompts = texts_and_ids(engine, 60)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE


def test_a_decoder_told_to_look_both_ways_answers_as_in_sentence_transformers(checkpoint):
    folder = checkpoint("qwen3", is_causal=False, pooling=["mean"])
    engine = load_engine(folder)
    assert decision(engine, "path")[0] == "packed"
    texts, prompts = texts_and_ids(engine, 100)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_token_ids_are_those_of_sentence_transformers(checkpoint, family):
    folder = checkpoint(family)
    texts, prompts = texts_and_ids(load_engine(folder), 100)
    features = SentenceTransformer(str(folder), device="cpu").preprocess(list(texts))
    expected = [
        ids[mask.bool()].tolist() for ids, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
    ]
    assert prompts == expected


def test_a_model_without_a_normalize_module_gives_raw_vectors_when_the_activation_is_off(checkpoint):
    from poolkit.contract import PoolingParams

    folder = checkpoint("bert", normalize=False)
    engine = load_engine(folder)
    texts, prompts = texts_and_ids(engine, 50)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    raw = run(engine, prompts, PoolingParams(use_activation=False))
    assert largest_difference(raw, reference) <= TOLERANCE * np.abs(reference).max()
    lengths = np.linalg.norm(reference, axis=1, keepdims=True)
    assert largest_difference(run(engine, prompts), reference / lengths) <= TOLERANCE
