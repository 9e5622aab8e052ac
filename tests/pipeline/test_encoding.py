"""Prompts become token ids, or an error that says what is wrong with which prompt."""

import pytest

from poolkit.contract import PoolingParams, TextPair
from poolkit.encoding import Encoder
from poolkit.engine import EncodedPrompt
from poolkit.errors import RequestError
from poolkit.testing import FAKE_MODEL, FakeTokenizer


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(FakeTokenizer(), FAKE_MODEL)


def encode(encoder: Encoder, *prompts: object, **params: object) -> list[EncodedPrompt | RequestError]:
    return encoder.encode(prompts, [PoolingParams(**params)] * len(prompts), first_index=10)


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def test_texts_and_token_ids_may_be_mixed(encoder):
    text, ids = encode(encoder, "one two", [5, 6, 7])
    assert len(text.token_ids) == 4
    assert ids.token_ids == [5, 6, 7]


def test_special_tokens_are_left_out_when_asked(encoder):
    [with_them] = encode(encoder, "one two")
    [without] = encode(encoder, "one two", add_special_tokens=False)
    assert list(with_them.token_ids)[1:-1] == list(without.token_ids)


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(encoder):
    short, long = encode(encoder, "one", words(100))
    assert isinstance(short, EncodedPrompt)
    assert str(long) == (
        "Prompt 11 has 102 tokens; fake takes at most 64. Shorten it, or set truncate_prompt_tokens=-1 to have it cut "
        "to that length."
    )


@pytest.mark.parametrize(("limit", "length"), [(-1, 64), (64, 64), (10, 10), (2, 2)])
def test_truncation_keeps_the_special_tokens(encoder, limit, length):
    [whole] = encode(Encoder(FakeTokenizer(), FAKE_MODEL), words(50), add_special_tokens=False)
    [cut] = encode(encoder, words(100), truncate_prompt_tokens=limit)
    assert len(cut.token_ids) == length
    assert (cut.token_ids[0], cut.token_ids[-1]) == (0, 1)
    assert cut.token_ids[1:-1][:50] == whole.token_ids[: length - 2]


def test_truncation_from_the_left_keeps_the_end_of_the_text(encoder):
    [cut] = encode(encoder, words(100), truncate_prompt_tokens=10, truncation_side="left")
    [end] = encode(encoder, " ".join(words(100).split()[-8:]))
    assert cut.token_ids == end.token_ids


def test_truncated_token_ids_have_no_special_tokens_to_keep(encoder):
    [right] = encode(encoder, list(range(2, 30)), truncate_prompt_tokens=3)
    [left] = encode(encoder, list(range(2, 30)), truncate_prompt_tokens=3, truncation_side="left")
    assert (right.token_ids, left.token_ids) == ([2, 3, 4], [27, 28, 29])


@pytest.mark.parametrize("limit", [0, 1, 65])
def test_a_truncation_that_cannot_be_is_refused(encoder, limit):
    [refusal] = encode(encoder, "one", truncate_prompt_tokens=limit)
    assert str(refusal) == (
        f"truncate_prompt_tokens is {limit}; for fake it must lie between 2 (its special tokens) and 64 (its maximum), "
        "or be -1 for the maximum."
    )
    assert refusal.param == "truncate_prompt_tokens"


def test_a_token_id_outside_the_vocabulary_is_refused(encoder):
    good, bad = encode(encoder, [1, 999], [3, 1000])
    assert isinstance(good, EncodedPrompt)
    assert str(bad) == (
        "Prompt 11 holds token id 1000; the ids of fake go from 0 to 999. Send text, or ids made by this model's own "
        "tokenizer (langchain's OpenAIEmbeddings sends another model's ids unless check_embedding_ctx_length=False)."
    )


def test_a_prompt_without_tokens_is_refused_and_an_empty_text_is_its_special_tokens(encoder):
    [empty_text] = encode(encoder, "")
    [no_ids] = encode(encoder, [])
    [bare] = encode(encoder, "", add_special_tokens=False)
    assert empty_text.token_ids == [0, 1]
    for refusal in (no_ids, bare):
        assert (
            str(refusal)
            == "Prompt 10 is empty: it has no tokens, and this model's tokenizer adds none. Send some text."
        )


def test_a_text_that_the_tokenizer_refuses_fails_alone():
    class Strict(FakeTokenizer):
        def encode_batch(self, texts, *, add_special_tokens):
            if any("\ud800" in text for text in texts):
                raise RequestError("the text holds a lone surrogate")
            return super().encode_batch(texts, add_special_tokens=add_special_tokens)

    first, second, third = encode(Encoder(Strict(), FAKE_MODEL), "one", "a\ud800", "two")
    assert isinstance(first, EncodedPrompt)
    assert isinstance(third, EncodedPrompt)
    assert str(second) == "Prompt 11: the text holds a lone surrogate"


def test_a_pair_has_its_special_tokens_and_types(encoder):
    [pair] = encode(encoder, TextPair("one two", "three"))
    [first] = encode(encoder, "one two", add_special_tokens=False)
    [second] = encode(encoder, "three", add_special_tokens=False)
    assert pair.token_ids == [0, *first.token_ids, 1, *second.token_ids, 1]
    assert pair.token_type_ids == [0, 0, 0, 0, 1, 1]


def test_a_pair_that_is_too_long_is_refused_unless_it_may_be_cut(encoder):
    [refusal] = encode(encoder, TextPair(words(10), words(100)))
    assert str(refusal) == (
        "Prompt 10 has 113 tokens; fake takes at most 64. Shorten it, or set truncate_prompt_tokens=-1 to have it cut "
        "to that length."
    )
    [cut] = encode(encoder, TextPair(words(10), words(100)), truncate_prompt_tokens=-1)
    assert len(cut.token_ids) == 64
    assert cut.token_type_ids == [0] * 12 + [1] * 52


def test_a_pair_cannot_be_cut_below_its_special_tokens(encoder):
    [refusal] = encode(encoder, TextPair("one", "two"), truncate_prompt_tokens=2)
    assert str(refusal) == (
        "truncate_prompt_tokens is 2; for fake it must lie between 3 (its special tokens) and 64 (its maximum), or be "
        "-1 for the maximum."
    )


def test_texts_pairs_and_ids_may_be_mixed(encoder):
    encoded = encode(encoder, [5, 6], TextPair("one", "two"), "one")
    assert [len(one.token_ids) for one in encoded] == [2, 5, 3]
    assert [one.token_type_ids is not None for one in encoded] == [False, True, False]
