"""A long text that will be cut is tokenized only in part, and has exactly the tokens of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from checkpoints import real_texts
from engines import encode_prompts, make_encoder
from poolkit.contract import Encoding, PairTemplate, PoolingParams, Prompt, TemplatedText, TextPair, TextSpec, TokenIds
from poolkit.errors import RequestError
from poolkit.testing import FAKE_MODEL, FakeTokenizer
from poolkit.tokenization import Encoder
from poolkit.tokenization.offsets import fast_locator

VOCABULARY = 600
SPECIAL = "<|an added token|>"
GPT_4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = (
    "  ",
    "\n\n",
    "\t",
    "....",
    "-----",
    "'s",
    "123456789",
    "naïve",
    "東京タワー",
    "😀😀",
    "e\u0301",
    SPECIAL,
    "\u00a0",
)
MODEL = replace(FAKE_MODEL, text=TextSpec(max_model_len=4096, vocab_size=VOCABULARY + 300))


class Counting(FakeTokenizer):
    """A tokenizer of the Rust library that counts the characters it is given."""

    special_affixes = (0, 0)
    pair_template = PairTemplate()

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._locate = fast_locator(backend)
        self.characters = 0

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[TokenIds]:
        self.characters += sum(map(len, texts))
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        self.characters += sum(map(len, texts))
        return self._locate(texts)


def train(tokenizer: Tokenizer, trainer: object) -> Tokenizer:
    tokenizer.train_from_iterator(real_texts(200), trainer)
    tokenizer.add_special_tokens([SPECIAL])
    return tokenizer


def bpe(**settings: object) -> object:
    return trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, **settings)


@cache
def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=["[UNK]"], show_progress=False)
    return train(tokenizer, trainer)


@cache
def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, bpe(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))


@cache
def regex_split() -> Tokenizer:
    """As Llama 3 and Qwen split: digits in threes from the left, newlines with the punctuation before them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT_4), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return train(tokenizer, bpe(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))


@cache
def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    return train(tokenizer, trainer)


@cache
def spaces_in_no_token() -> Tokenizer:
    """As Llama 2 and Gemma: no pre-tokenizer, but a vocabulary in which a space only begins a token."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁+[^▁]*"), "isolated")
    train(trained, bpe())
    trained.pre_tokenizer = None
    return Tokenizer.from_str(trained.to_str())


@cache
def spaces_in_tokens() -> Tokenizer:
    """No pre-tokenizer, and tokens of several words: every character may have a say in every token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return train(tokenizer, bpe())


WORDS_APART = (wordpiece, byte_level, regex_split, unigram, spaces_in_no_token)


def long_text(dice: Random, characters: int) -> str:
    texts = real_texts(200)
    parts: list[str] = []
    while sum(map(len, parts)) < characters:
        parts += [dice.choice(texts)[: dice.randrange(400)], dice.choice((" ", "", *PIECES)), dice.choice(PIECES)]
    return "".join(parts)


def encode(encoder: Encoder, prompt: Prompt, **params: object) -> list[int]:
    [one] = encode_prompts(encoder, [prompt], [PoolingParams(**params)], refuses_long=False)
    assert not isinstance(one, RequestError), one
    return list(one.token_ids)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("make", [*WORDS_APART, spaces_in_tokens])
def test_a_text_read_in_part_has_the_tokens_of_the_whole(make: Callable[[], Tokenizer], side: str):
    tokenizer = Counting(make())
    encoder = make_encoder(tokenizer, MODEL)
    dice = Random(f"{make.__name__} {side}")
    for _ in range(60):
        text = long_text(dice, dice.choice((2000, 4000, 9000)))
        whole = encode(encoder, text)
        for count in (1, dice.randrange(2, 40), dice.randrange(40, 300), 4096):
            kept = encode(encoder, text, truncate_prompt_tokens=count, truncation_side=side)
            assert kept == (whole[-count:] if side == "left" else whole[:count])


@pytest.mark.parametrize("make", WORDS_APART)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_page_costs_what_is_kept_of_it(make: Callable[[], Tokenizer], side: str):
    tokenizer = Counting(make())
    encoder = make_encoder(tokenizer, MODEL)
    page = long_text(Random(1), 500_000)
    tokenizer.characters = 0
    params = PoolingParams(truncate_prompt_tokens=512, truncation_side=side)
    for prompt in (page, TemplatedText("<text>", page, "</text>")):
        [one] = encode_prompts(encoder, [prompt], [params])
        assert len(one.token_ids) == 512
    [pair] = encode_prompts(encoder, [TextPair("a question", page)], [params])
    assert len(pair.token_ids) == 512
    if side == "right":
        assert page.startswith(encoder.shorten(page, tokens=512))
    assert tokenizer.characters < 30_000


@pytest.mark.parametrize("make", [*WORDS_APART, spaces_in_tokens])
def test_a_text_is_shortened_at_the_same_character_however_much_follows(make: Callable[[], Tokenizer]):
    encoder = make_encoder(Counting(make()), MODEL)
    dice = Random(2)
    for _ in range(20):
        text = long_text(dice, 6000)
        count = dice.randrange(1, 200)
        spans = fast_locator(make())([text])[0].offsets
        assert encoder.shorten(text, tokens=count) == text[: min(spans[count - 1][1], spans[count][0])]
