"""Every family answers what sentence-transformers answers, on the path it takes, alone and in any batch."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from checkpoints import FAMILIES
from engines import (
    TOLERANCE,
    decision,
    largest_difference,
    load_engine,
    load_tokenizer,
    run,
    run_in_batches,
    texts_and_ids,
)

PATHS = {family: "padded" if family == "deberta" else "packed" for family in FAMILIES}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_answers_as_sentence_transformers_does(checkpoint, family):
    folder = checkpoint(family)
    engine = load_engine(folder)
    assert decision(engine, "path")[0] == PATHS[family]
    texts, prompts = texts_and_ids(folder, 500)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)

    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE
    assert largest_difference(run_in_batches(engine, prompts, size=7), reference) <= TOLERANCE
    assert largest_difference(run_in_batches(engine, prompts, size=1), reference) <= TOLERANCE
    padded = load_engine(folder, batching="padded", max_num_batched_tokens=2048)
    assert largest_difference(run(padded, prompts), reference) <= TOLERANCE


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.parametrize("pooling", [*([mode] for mode in MODES), MODES], ids="+".join)
@pytest.mark.parametrize("dense", [None, 20])
def test_every_pooling_mode_and_a_dense_layer_answer_as_in_sentence_transformers(checkpoint, pooling, dense):
    folder = checkpoint("bert", pooling=pooling, dense=dense)
    engine = load_engine(folder)
    texts, prompts = texts_and_ids(folder, 60)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE


def test_a_decoder_told_to_look_both_ways_answers_as_in_sentence_transformers(checkpoint):
    folder = checkpoint("qwen3", is_causal=False, pooling=["mean"])
    engine = load_engine(folder)
    assert decision(engine, "path")[0] == "packed"
    texts, prompts = texts_and_ids(folder, 100)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_token_ids_are_those_of_sentence_transformers(checkpoint, family):
    folder = checkpoint(family)
    texts, prompts = texts_and_ids(folder, 100)
    features = SentenceTransformer(str(folder), device="cpu").preprocess(list(texts))
    expected = [
        ids[mask.bool()].tolist() for ids, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
    ]
    assert [ids.tolist() for ids in prompts] == expected


def test_a_model_without_a_normalize_module_gives_raw_vectors_when_the_activation_is_off(checkpoint):
    from poolkit.contract import PoolingParams

    folder = checkpoint("bert", normalize=False)
    engine = load_engine(folder)
    texts, prompts = texts_and_ids(folder, 50)
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    raw = run(engine, prompts, PoolingParams(use_activation=False))
    assert largest_difference(raw, reference) <= TOLERANCE * np.abs(reference).max()
    lengths = np.linalg.norm(reference, axis=1, keepdims=True)
    assert largest_difference(run(engine, prompts), reference / lengths) <= TOLERANCE


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_a_padding_token_inside_a_text_is_left_out_of_the_positions_as_in_sentence_transformers(checkpoint, family):
    folder = checkpoint(family)
    engine = load_engine(folder)
    assert decision(engine, "path")[0] == "packed"
    texts = ["a cat <pad> sat on the mat", "short", "<pad><pad> rivers and <pad> salt"]
    prompts = load_tokenizer(folder).encode_batch(texts, add_special_tokens=True)
    pad_token_id = 1
    assert [ids.tolist().count(pad_token_id) for ids in prompts] == [1, 0, 3]
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert largest_difference(run(engine, prompts), reference) <= TOLERANCE
