"""The tokenizer: whole texts, sentence-transformers' settings, and clear words about broken Unicode."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from checkpoints import make_checkpoint, real_texts, write_json
from engines import load_tokenizer
from poolkit.errors import ModelError, RequestError


def encode(tokenizer, text, *, add_special_tokens=True):
    return tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)[0].tolist()


def test_truncation_and_padding_baked_into_the_file_are_switched_off(minilm):
    tokenizer = load_tokenizer(minilm)
    short, long = encode(tokenizer, "hello"), encode(tokenizer, "hello " * 300)
    assert short == [101, 7592, 102]
    assert long == [101, *[7592] * 300, 102]


def test_special_tokens_can_be_left_out(minilm):
    tokenizer = load_tokenizer(minilm)
    assert encode(tokenizer, "hello", add_special_tokens=False) == [7592]
    assert tokenizer.special_affixes == (1, 1)


@pytest.mark.parametrize(("family", "affixes"), [("bert", (1, 1)), ("qwen3", (0, 1)), ("llama", (1, 1))])
def test_the_special_tokens_at_either_end_are_counted(checkpoint, family, affixes):
    assert load_tokenizer(checkpoint(family)).special_affixes == affixes


def test_a_lone_surrogate_is_named_with_its_place(minilm):
    with pytest.raises(RequestError) as caught:
        load_tokenizer(minilm).encode_batch(["fine", "a naïve \ud800 text"], add_special_tokens=True)
    assert str(caught.value) == ("the text holds a lone surrogate (U+D800) at character 8; it is not valid Unicode")


def test_a_null_byte_and_an_empty_text_have_ids(minilm):
    tokenizer = load_tokenizer(minilm)
    assert encode(tokenizer, "a\0b") == [101, 11113, 102]
    assert encode(tokenizer, "") == [101, 102]


def test_a_folder_without_a_vocabulary_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder)
    assert str(caught.value) == (
        f"The tokenizer of {folder} has 5 tokens: {folder} holds no vocabulary. Fetch the model again."
    )


def test_do_lower_case_of_sentence_transformers_is_honoured(tmp_path):
    folder = make_checkpoint(tmp_path / "llama", "llama")
    assert encode(load_tokenizer(folder), "Return TRUE") != encode(load_tokenizer(folder), "return true")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True})
    tokenizer = load_tokenizer(folder)
    assert encode(tokenizer, "Return TRUE") == encode(tokenizer, "return true")


def test_it_says_where_each_token_lies_and_which_words_are_made_apart(minilm):
    [located] = load_tokenizer(minilm).encode_with_offsets(["Hello, embeddings"])
    assert located.token_ids.tolist() == [7592, 1010, 7861, 8270, 4667, 2015]
    assert located.offsets == [(0, 5), (5, 6), (7, 9), (9, 12), (12, 16), (16, 17)]
    assert located.word_ids == [0, 1, 2, 2, 2, 2]


def test_many_threads_may_share_it(minilm):
    tokenizer = load_tokenizer(minilm)
    texts = real_texts(200)
    expected = tokenizer.encode_batch(texts, add_special_tokens=True)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: tokenizer.encode_batch([text], add_special_tokens=True)[0], texts))
    assert [ids.tolist() for ids in answers] == [ids.tolist() for ids in expected]
