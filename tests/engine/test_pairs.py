"""Pairs of texts become exactly the ids and token types of transformers, also where they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from checkpoints import make_checkpoint, real_texts, write_json
from engines import encode_prompts, load_encoder
from poolkit.contract import PoolingParams, TextPair
from poolkit.errors import RequestError
from poolkit.tokenization.pairs import truncate_pairs

FAMILIES = ["bert", "roberta", "modernbert", "deberta", "qwen3", "llama"]
LIMITS = [4, 5, 6, 7, 10, 11, 32, 33, 128, 250]


def pairs_of(count):
    texts = real_texts(2 * count)
    return [TextPair(first, second) for first, second in zip(texts[:count], texts[count:], strict=True)]


def encode(folder, pairs, **params):
    return encode_prompts(load_encoder(folder), pairs, [PoolingParams(**params)] * len(pairs), first_index=0)


def assert_same(encoded, pairs, tokenizer, **arguments):
    for one, pair in zip(encoded, pairs, strict=True):
        expected = tokenizer(pair.first, pair.second, **arguments)
        assert list(one.token_ids) == expected["input_ids"]
        types = expected.get("token_type_ids", [0] * len(one.token_ids))
        found = [0] * len(one.token_ids) if one.token_type_ids is None else list(one.token_type_ids)
        assert found == types


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_is_cut_to_the_ids_of_transformers(checkpoint, family, side):
    folder = checkpoint(family)
    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    encoder = load_encoder(folder)
    pairs = pairs_of(20)
    for limit in LIMITS:
        params = [PoolingParams(truncate_prompt_tokens=limit, truncation_side=side)] * len(pairs)
        encoded = encode_prompts(encoder, pairs, params)
        assert_same(encoded, pairs, tokenizer, truncation=True, max_length=limit)


def test_pairs_of_a_real_model_are_cut_to_the_ids_of_transformers(minilm):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    pairs = pairs_of(100)
    encoded = encode(minilm, pairs, truncate_prompt_tokens=64)
    assert any(one.token_type_ids is not None for one in encoded)
    assert_same(encoded, pairs, tokenizer, truncation=True, max_length=64)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_without_special_tokens_is_its_two_texts(checkpoint, family):
    folder = checkpoint(family)
    pairs = [TextPair("one two", "three"), TextPair("", "b"), TextPair("a", "")]
    encoded = encode(folder, pairs, add_special_tokens=False)
    assert_same(encoded, pairs, AutoTokenizer.from_pretrained(folder), add_special_tokens=False)


@pytest.mark.parametrize("room", range(16))
def test_both_texts_fit_into_the_room_and_neither_gives_up_more_than_it_must(room):
    first, second = np.indices((8, 8)).reshape(2, -1)
    kept_first, kept_second = truncate_pairs(first, second, room)
    np.testing.assert_array_equal(kept_first + kept_second, np.minimum(first + second, room))
    assert (kept_first <= first).all()
    assert (kept_second <= second).all()


def test_no_prompt_of_the_models_is_put_before_a_text_of_a_pair(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert")
    pair = TextPair("cats", "dogs")
    [expected] = encode(folder, [pair])
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"q": "query: "}, "default_prompt_name": "q"})
    [actual] = encode(folder, [pair], prompt_name="q")
    assert list(actual.token_ids) == list(expected.token_ids)


def test_a_lone_surrogate_in_a_pair_is_named_and_fails_alone(minilm):
    first, second = encode(minilm, [TextPair("fine", "fine"), TextPair("fine", "bad \ud800")])
    assert list(first.token_ids) == [101, 2986, 102, 2986, 102]
    assert isinstance(second, RequestError)
    assert str(second) == ("Prompt 1: the text holds a lone surrogate (U+D800) at character 4; it is not valid Unicode")
