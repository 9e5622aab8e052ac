"""Whatever the text, the tokenizer and the limits: reading in part gives exactly the tokens that reading all gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from checkpoints import real_texts
from engines import encode_prompts, make_encoder
from pipeline.test_long_texts import MODEL, PIECES, WORDS_APART, Counting, spaces_in_tokens
from poolkit.contract import Encoding, PoolingParams, Prompt, TemplatedText, TextPair
from poolkit.errors import RequestError
from poolkit.tokenization import Encoder
from properties import quick

SIDES = st.sampled_from(("right", "left"))
CHARACTERS = st.characters(codec="utf-8")
RUNS = st.builds(lambda text, count: text * count, st.text(CHARACTERS, min_size=1, max_size=3), st.integers(1, 300))
"""One thing over and over: no word ends within what is read."""
PARTS = st.one_of(
    st.sampled_from(PIECES),
    st.sampled_from(real_texts(200)).map(lambda text: text[:400]),
    st.sampled_from(real_texts(200)).map(lambda text: text[:50]),
    st.text(CHARACTERS, max_size=30),
    RUNS,
)
EMPTY = "Prompt 0 is empty: it has no tokens, and this model's tokenizer adds none. Send some text."
TEXTS = st.lists(PARTS, max_size=30).map("".join)
COUNTS = st.integers(1, 80)
FRAMES = st.builds(TemplatedText, st.text(CHARACTERS, max_size=5), TEXTS, st.text(CHARACTERS, max_size=5))


class ReadingAll(Counting):
    """The same tokenizer where it tells no offsets, so that nothing can be left unread."""

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding] | None:  # noqa: ARG002
        return None


@pytest.fixture(params=[*WORDS_APART, spaces_in_tokens], ids=lambda make: make.__name__, scope="module")
def make(request: pytest.FixtureRequest) -> Callable[[], Tokenizer]:
    return request.param


def encode(encoder: Encoder, prompt: Prompt, **params: object) -> list[int] | str:
    """Return the token ids of a prompt, or why it is refused."""
    [one] = encode_prompts(encoder, [prompt], [PoolingParams(**params)], refuses_long=False)
    return str(one) if isinstance(one, RequestError) else list(one.token_ids)


@given(text=TEXTS, count=COUNTS, side=SIDES)
@quick(100)
def test_a_truncated_text_has_the_first_or_the_last_tokens_of_the_whole(make, text, count, side):
    encoder = make_encoder(Counting(make()), MODEL)
    whole = encode(make_encoder(ReadingAll(make()), MODEL), text)

    kept = encode(encoder, text, truncate_prompt_tokens=count, truncation_side=side)

    assert kept == (whole if isinstance(whole, str) else whole[-count:] if side == "left" else whole[:count])


@given(pair=st.builds(TextPair, TEXTS, TEXTS), count=COUNTS, side=SIDES)
@quick(60)
def test_a_truncated_pair_has_the_tokens_that_reading_all_of_it_gives(make, pair: TextPair, count, side):
    params = {"truncate_prompt_tokens": count, "truncation_side": side}

    read_in_part, read_whole = (make_encoder(kind(make()), MODEL) for kind in (Counting, ReadingAll))

    assert encode(read_in_part, pair, **params) == encode(read_whole, pair, **params)


@given(framed=FRAMES, count=st.integers(64, 120), side=SIDES)
@quick(60)
def test_a_text_in_a_template_is_cut_as_if_all_of_it_were_read(make, framed: TemplatedText, count, side):
    tokenizer = Counting(make())

    kept = encode(make_encoder(tokenizer, MODEL), framed, truncate_prompt_tokens=count, truncation_side=side)

    assert kept == cut_whole(framed, tokenizer, count, side)


def cut_whole(framed: TemplatedText, tokenizer: Counting, count: int, side: str) -> list[int] | str:
    """Return the token ids of a text in its template, cut where the surplus begins until it fits."""
    text, begin = framed.text, len(framed.prefix)
    while True:
        [tokens] = tokenizer.encode_with_offsets([framed.prefix + text + framed.suffix])
        surplus = len(tokens.token_ids) - count
        if surplus <= 0:
            return list(tokens.token_ids) or EMPTY
        spans = [(start, end) for start, end in tokens.offsets if end > begin and start < begin + len(text)]
        if surplus >= len(spans):
            text = ""
        elif side == "right":
            text = text[: max(0, spans[-surplus][0] - begin)]
        else:
            text = text[spans[surplus - 1][1] - begin :]


@given(first=TEXTS, second=TEXTS, of_query=COUNTS, of_document=COUNTS)
@quick(60)
def test_each_text_of_a_pair_keeps_so_many_tokens_as_reading_all_would_leave_it(
    make, first, second, of_query, of_document
):
    pair, params = TextPair(first, second), {"max_tokens_per_query": of_query, "max_tokens_per_doc": of_document}

    read_in_part, read_whole = (make_encoder(kind(make()), MODEL) for kind in (Counting, ReadingAll))

    assert encode(read_in_part, pair, **params) == encode(read_whole, pair, **params)


@given(text=TEXTS, count=COUNTS)
@quick(60)
def test_a_shortened_text_ends_where_reading_all_of_it_says_that_its_tokens_end(make, text, count):
    tokenizer = Counting(make())
    [whole] = tokenizer.encode_with_offsets([text])

    short = make_encoder(tokenizer, MODEL).shorten(text, tokens=count)

    spans = whole.offsets
    assert short == (text if len(spans) <= count else text[: min(spans[count - 1][1], spans[count][0])])
