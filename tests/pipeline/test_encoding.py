"""Prompts become token ids, or an error that says what is wrong with which prompt."""

from dataclasses import replace

import pytest

from engines import make_encoder
from poolkit.contract import EncodedPrompt, PoolingParams, PoolingSpec, TemplatedText, TextPair, TokenInputs
from poolkit.errors import RequestError
from poolkit.testing import FAKE_MODEL, FakeTokenizer
from poolkit.tokenization import Encoder


@pytest.fixture
def encoder() -> Encoder:
    return make_encoder(FakeTokenizer(), FAKE_MODEL)


def encode(encoder: Encoder, *prompts: object, **params: object) -> list[EncodedPrompt | RequestError]:
    resolved = encoder.resolve(PoolingParams(**params))
    return encoder.encode(prompts, [resolved] * len(prompts), first_index=10)


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def test_texts_and_token_ids_may_be_mixed(encoder):
    text, ids = encode(encoder, "one two", [5, 6, 7])
    assert len(text.token_ids) == 4
    assert list(ids.token_ids) == [5, 6, 7]


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
    [whole] = encode(make_encoder(FakeTokenizer(), FAKE_MODEL), words(50), add_special_tokens=False)
    [cut] = encode(encoder, words(100), truncate_prompt_tokens=limit)
    assert len(cut.token_ids) == length
    assert (cut.token_ids[0], cut.token_ids[-1]) == (0, 1)
    assert list(cut.token_ids[1:-1][:50]) == list(whole.token_ids[: length - 2])


def test_truncation_from_the_left_keeps_the_end_of_the_text(encoder):
    [cut] = encode(encoder, words(100), truncate_prompt_tokens=10, truncation_side="left")
    [end] = encode(encoder, " ".join(words(100).split()[-8:]))
    assert list(cut.token_ids) == list(end.token_ids)


def test_truncated_token_ids_have_no_special_tokens_to_keep(encoder):
    [right] = encode(encoder, list(range(2, 30)), truncate_prompt_tokens=3)
    [left] = encode(encoder, list(range(2, 30)), truncate_prompt_tokens=3, truncation_side="left")
    assert (list(right.token_ids), list(left.token_ids)) == ([2, 3, 4], [27, 28, 29])


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
    assert list(empty_text.token_ids) == [0, 1]
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

    first, second, third = encode(make_encoder(Strict(), FAKE_MODEL), "one", "a\ud800", "two")
    assert isinstance(first, EncodedPrompt)
    assert isinstance(third, EncodedPrompt)
    assert str(second) == "Prompt 11: the text holds a lone surrogate"


def test_a_pair_has_its_special_tokens_and_types(encoder):
    [pair] = encode(encoder, TextPair("one two", "three"))
    [first] = encode(encoder, "one two", add_special_tokens=False)
    [second] = encode(encoder, "three", add_special_tokens=False)
    assert list(pair.token_ids) == [0, *first.token_ids, 1, *second.token_ids, 1]
    assert list(pair.token_type_ids) == [0, 0, 0, 0, 1, 1]


def test_a_pair_that_is_too_long_is_refused_unless_it_may_be_cut(encoder):
    [refusal] = encode(encoder, TextPair(words(10), words(100)))
    assert str(refusal) == (
        "Prompt 10 has 113 tokens; fake takes at most 64. Shorten it, or set truncate_prompt_tokens=-1 to have it cut "
        "to that length."
    )
    [cut] = encode(encoder, TextPair(words(10), words(100)), truncate_prompt_tokens=-1)
    assert len(cut.token_ids) == 64
    assert list(cut.token_type_ids) == [0] * 12 + [1] * 52


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


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_query_and_a_document_of_a_pair_have_limits_of_their_own(encoder, side):
    limits = {"max_tokens_per_query": 2, "max_tokens_per_doc": 4, "truncation_side": side}
    [pair] = encode(encoder, TextPair(words(10), words(10)), **limits)
    ends = slice(-2, None) if side == "left" else slice(2)
    first, second = " ".join(words(10).split()[ends]), words(10).split()
    second = " ".join(second[-4:] if side == "left" else second[:4])
    [expected] = encode(encoder, TextPair(first, second))
    assert list(pair.token_ids) == list(expected.token_ids)
    assert list(pair.token_type_ids) == list(expected.token_type_ids)


def test_the_limits_of_a_pairs_texts_come_before_that_of_the_pair(encoder):
    [pair] = encode(encoder, TextPair(words(10), words(100)), max_tokens_per_query=4, truncate_prompt_tokens=11)
    [expected] = encode(encoder, TextPair(words(4), words(4)))
    assert list(pair.token_ids) == list(expected.token_ids)


@pytest.mark.parametrize(("input_type", "kept"), [("query", 2), ("document", 3), (None, 9)])
def test_a_text_has_the_limit_of_its_input_type(encoder, input_type, kept):
    [text] = encode(encoder, words(9), input_type=input_type, max_tokens_per_query=2, max_tokens_per_doc=3)
    [expected] = encode(encoder, words(kept))
    assert list(text.token_ids) == list(expected.token_ids)


def test_a_framed_text_is_read_as_one_string_without_special_tokens_and_prompts(prompting):
    [framed] = encode(prompting, TemplatedText("Query: ", "wh", "at? yes"))
    [expected] = encode(prompting, "Query: what? yes", add_special_tokens=False, prompt_name="none")
    assert list(framed.token_ids) == list(expected.token_ids)


@pytest.mark.parametrize("limits", [{"truncate_prompt_tokens": 7}, {"max_tokens_per_doc": 4}])
@pytest.mark.parametrize("side", ["right", "left"])
def test_of_a_framed_text_only_the_text_is_cut(encoder, side, limits):
    [framed] = encode(encoder, TemplatedText("< ", words(9), " | >"), truncation_side=side, **limits)
    kept = words(9).split()
    kept = " ".join(kept[-4:] if side == "left" else kept[:4])
    [expected] = encode(encoder, f"< {kept} | >", add_special_tokens=False)
    assert list(framed.token_ids) == list(expected.token_ids)


def test_a_frame_that_leaves_no_room_for_its_text_is_refused(encoder):
    [refusal] = encode(encoder, TemplatedText("a b ", "text", " c"), truncate_prompt_tokens=2)
    assert str(refusal) == (
        "Prompt 10: what stands around the text has 3 tokens by itself, more than the 2 that are allowed in all. "
        "Shorten it, or allow more with truncate_prompt_tokens."
    )
    [bare] = encode(encoder, TemplatedText("a b ", "text", " c"), truncate_prompt_tokens=3)
    [expected] = encode(encoder, "a b c", add_special_tokens=False)
    assert list(bare.token_ids) == list(expected.token_ids)


def test_a_text_cannot_be_cut_in_its_frame_where_the_tokenizer_does_not_tell_where_tokens_lie():
    class Silent(FakeTokenizer):
        def encode_with_offsets(self, texts):  # noqa: ARG002 - the protocol's
            return None

    encoder = make_encoder(Silent(), FAKE_MODEL)
    [refusal] = encode(encoder, TemplatedText("a ", words(9), " b"), truncate_prompt_tokens=5)
    assert str(refusal) == (
        "Prompt 10: the model's tokenizer does not tell where its tokens lie in a text, so that a text cannot be cut "
        "between what stands around it. Shorten it."
    )
    [cut] = encode(encoder, words(3000), truncate_prompt_tokens=10)
    assert len(cut.token_ids) == 10


def with_prompts(prompts):
    return replace(FAKE_MODEL, text=replace(FAKE_MODEL.text, prompts=prompts, default_prompt_name="query"))


@pytest.fixture
def prompting() -> Encoder:
    prompts = {"query": "search for ", "passage": "keep ", "none": ""}
    return make_encoder(FakeTokenizer(), with_prompts(prompts))


@pytest.mark.parametrize(
    ("params", "prompt"),
    [
        ({}, "search for "),
        ({"prompt_name": "passage"}, "keep "),
        ({"prompt_name": "none"}, ""),
        ({"input_type": "query"}, "search for "),
        ({"input_type": "document"}, "keep "),
        ({"input_type": "document", "prompt_name": "query"}, "search for "),
    ],
)
def test_a_prompt_of_the_models_goes_before_a_text(encoder, prompting, params, prompt):
    [prompted] = encode(prompting, "one two", **params)
    [expected] = encode(encoder, f"{prompt}one two")
    assert list(prompted.token_ids) == list(expected.token_ids)


def test_a_text_that_is_said_to_be_a_document_does_not_get_the_default_prompt_of_queries(encoder):
    queries_only = with_prompts({"query": "search for "})
    [document] = encode(make_encoder(FakeTokenizer(), queries_only), "one two", input_type="document")
    [expected] = encode(encoder, "one two")
    assert list(document.token_ids) == list(expected.token_ids)


def test_a_prompt_that_the_model_does_not_have_is_refused(encoder, prompting):
    with pytest.raises(RequestError) as caught:
        encode(prompting, "one", prompt_name="pasage")
    assert str(caught.value) == (
        "fake has no prompt named 'pasage'. Did you mean 'passage'? Its prompts are query, passage, none."
    )
    assert caught.value.param == "prompt_name"
    with pytest.raises(RequestError) as caught:
        encode(encoder, "one", prompt_name="query")
    assert str(caught.value) == "fake has no prompt named 'query'. It has none: leave it out."


@pytest.mark.parametrize("count", [20, 3000])
def test_a_text_that_is_cut_on_the_left_keeps_its_prompt(encoder, prompting, count):
    [cut] = encode(prompting, words(count), truncate_prompt_tokens=8, truncation_side="left")
    [expected] = encode(encoder, "search for " + " ".join(words(count).split()[-4:]))
    assert list(cut.token_ids) == list(expected.token_ids)


def test_a_prompt_does_not_count_as_tokens_of_the_query(encoder, prompting):
    [cut] = encode(prompting, words(9), input_type="query", max_tokens_per_query=3)
    [expected] = encode(encoder, "search for " + words(3))
    assert list(cut.token_ids) == list(expected.token_ids)


def test_the_tokens_of_a_text_are_those_that_are_encoded(prompting):
    params = prompting.resolve(PoolingParams(truncate_prompt_tokens=8, truncation_side="left"))
    [encoded] = prompting.encode([words(20)], [params])
    [with_tokens] = prompting.encode([words(20)], [params], with_text_tokens=True)
    tokens = with_tokens.text_tokens
    assert [token.token for token in tokens if not token.is_special] == words(20).split()[-4:]
    assert list(with_tokens.token_ids) == list(encoded.token_ids)
    assert len(tokens) == len(encoded.token_ids)


def test_a_prompt_that_is_left_out_of_pooling_needs_a_text_behind_it():
    model = replace(with_prompts({"query": "search for "}), pooling=PoolingSpec(includes_prompt=False))
    encoder = make_encoder(FakeTokenizer(), model)
    text, tokens = encode(encoder, "one two", TokenInputs([5, 6, 7], prompt_length=2))
    assert (text.prompt_length, tokens.prompt_length) == (3, 2)
    [refusal] = encode(encoder, "one two", truncate_prompt_tokens=3)
    assert str(refusal) == (
        "Prompt 10 has 3 tokens, all of them the prompt's that fake puts before a text and leaves out of pooling. "
        "Send a text, and allow more than so many tokens."
    )
