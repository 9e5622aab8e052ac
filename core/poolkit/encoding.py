"""Turns prompts into token ids the engine can run, or says of each prompt why it cannot be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from poolkit.contract import FramedText, PoolingParams, Prompt, TextPair, TypedTokens
from poolkit.engine import EncodedPrompt, Tokenizer
from poolkit.engine.pairs import PairTemplate, cut_pair
from poolkit.errors import RequestError
from poolkit.models import ModelInfo

__all__ = ["Encoder"]

PROBE = "a"

T = TypeVar("T")
U = TypeVar("U")

Halves = tuple[list[int], list[int]]
"""The token ids of the two texts of a pair, without special tokens."""


class Encoder:
    """Tokenizes, truncates and range-checks the prompts of one model. Used from many threads at a time."""

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo) -> None:
        self._tokenizer = tokenizer
        self._info = info

    def encode(
        self, prompts: Sequence[Prompt], params: Sequence[PoolingParams], *, first_index: int, refuses_long: bool = True
    ) -> list[EncodedPrompt | RequestError]:
        """Return each prompt's token ids, or the error that the caller should be told.

        Args:
            prompts: texts, pairs of texts and token ids of either, in any mix.
            params: one per prompt.
            first_index: the index of `prompts[0]` in its request, for the messages.
            refuses_long: whether a prompt may not be longer than the model's maximum: what would run may not.
        """
        tokenized: dict[int, list[int] | Halves | RequestError] = {}
        for add_special_tokens in (True, False):
            texts = {
                i: prompt
                for i, prompt in enumerate(prompts)
                if isinstance(prompt, str) and params[i].add_special_tokens is add_special_tokens
            }
            encode_batch = partial(self._tokenizer.encode_batch, add_special_tokens=add_special_tokens)
            tokenized.update(_tokenize(texts, encode_batch))
        pairs = {i: prompt for i, prompt in enumerate(prompts) if isinstance(prompt, TextPair)}
        tokenized.update(_tokenize(pairs, self._tokenizer.encode_pairs))

        encoded: list[EncodedPrompt | RequestError] = []
        for i, (prompt, wish) in enumerate(zip(prompts, params, strict=True)):
            try:
                one = self._encode_one(tokenized.get(i), prompt, wish, first_index + i)
                if refuses_long:
                    self._check_length(one.token_ids, first_index + i)
                encoded.append(one)
            except RequestError as error:
                encoded.append(error)
        return encoded

    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        [ids] = self._tokenizer.encode_batch([PROBE], add_special_tokens=True)
        before, after = self._tokenizer.special_affixes
        return tuple(ids[:before]), tuple(ids[len(ids) - after :])

    def halves(self, pair: TextPair) -> Halves:
        """Return the token ids of the two texts of a pair, without special tokens.

        Raises RequestError where a text is not valid Unicode.
        """
        [halves] = self._tokenizer.encode_pairs([pair])
        return halves

    def pair_template(self, params: PoolingParams) -> PairTemplate:
        """Return what is put around and between the two texts of a pair."""
        template = self._tokenizer.pair_template
        return template if params.add_special_tokens else template.without_special_tokens()

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        return self._tokenizer.tokens(token_ids)

    def _encode_one(
        self, tokenized: list[int] | Halves | RequestError | None, prompt: Prompt, params: PoolingParams, index: int
    ) -> EncodedPrompt:
        ids: Sequence[int]
        types: Sequence[int] | None = None
        match tokenized:
            case RequestError():
                raise RequestError(f"Prompt {index}: {tokenized}", param="input")
            case list():
                affixes = self._tokenizer.special_affixes if params.add_special_tokens else (0, 0)
                ids = self._truncate(tokenized, params, affixes=affixes)
            case first, second:
                ids, types = self._join(first, second, params)
            case None:
                assert not isinstance(prompt, str | TextPair | FramedText)
                ids, types = _ids_and_types(prompt)
                self._check_range(ids, index)
                ids = self._truncate(ids, params, affixes=(0, 0))
                types = types and self._truncate(types, params, affixes=(0, 0))
        if not ids:
            raise RequestError(
                f"Prompt {index} is empty: it has no tokens, and this model's tokenizer adds none. Send some text.",
                param="input",
            )
        return EncodedPrompt(ids, params, types)

    def _check_length(self, ids: Sequence[int], index: int) -> None:
        if len(ids) > self._info.max_model_len:
            raise RequestError(
                f"Prompt {index} has {len(ids)} tokens; {self._info.name} takes at most {self._info.max_model_len}. "
                "Shorten it, or set truncate_prompt_tokens=-1 to have it cut to that length.",
                param="input",
            )

    def _check_range(self, ids: Sequence[int], index: int) -> None:
        low, high = min(ids, default=0), max(ids, default=0)
        if low < 0 or high >= self._info.vocab_size:
            raise RequestError(
                f"Prompt {index} holds token id {low if low < 0 else high}; the ids of {self._info.name} go from "
                f"0 to {self._info.vocab_size - 1}. Send text, or ids made by this model's own tokenizer "
                "(langchain's OpenAIEmbeddings sends another model's ids unless check_embedding_ctx_length=False).",
                param="input",
            )

    def _join(self, first: list[int], second: list[int], params: PoolingParams) -> tuple[list[int], list[int] | None]:
        """Return the ids and types of a pair, its texts cut as `params` asks and the special tokens kept."""
        template = self.pair_template(params)
        limit = self._limit(params, special_tokens=template.size)
        if limit is not None:
            longest = cut_pair(len(first), len(second), limit - template.size)
            first, second = (_cut(ids, n, params) for ids, n in zip((first, second), longest, strict=True))
        return template.join(first, second)

    def _truncate(self, ids: Sequence[int], params: PoolingParams, *, affixes: tuple[int, int]) -> Sequence[int]:
        """Return the ids cut as `params` asks, the special tokens at either end kept."""
        before, after = affixes
        limit = self._limit(params, special_tokens=before + after)
        if limit is None or len(ids) <= limit:
            return ids
        end = len(ids) - after
        return [*ids[:before], *_cut(ids[before:end], limit - before - after, params), *ids[end:]]

    def _limit(self, params: PoolingParams, *, special_tokens: int) -> int | None:
        """Return how many tokens a prompt may keep, or None where it must not be cut."""
        limit, longest = params.truncate_prompt_tokens, self._info.max_model_len
        if limit is None:
            return None
        if limit == -1:
            limit = longest
        if not max(1, special_tokens) <= limit <= longest:
            raise RequestError(
                f"truncate_prompt_tokens is {limit}; for {self._info.name} it must lie between "
                f"{max(1, special_tokens)} (its special tokens) and {longest} (its maximum), or be -1 for the maximum.",
                param="truncate_prompt_tokens",
            )
        return limit


def _ids_and_types(prompt: TypedTokens | Sequence[int]) -> tuple[Sequence[int], Sequence[int] | None]:
    return (prompt.token_ids, prompt.token_type_ids) if isinstance(prompt, TypedTokens) else (prompt, None)


def _cut(ids: Sequence[int], count: int, params: PoolingParams) -> list[int]:
    """Return the `count` tokens that stay when the others are dropped from the side that `params` names."""
    return list(ids[len(ids) - count :] if params.truncation_side == "left" else ids[:count])


def _tokenize(texts: dict[int, T], encode_batch: Callable[[list[T]], Sequence[U]]) -> dict[int, U | RequestError]:
    """Return the ids of each text; where the tokenizer refuses some, those that it refuses fail alone."""
    if not texts:
        return {}
    try:
        return dict(zip(texts, encode_batch(list(texts.values())), strict=True))
    except RequestError as error:
        if len(texts) == 1:
            return dict.fromkeys(texts, error)
        return {i: ids for key, text in texts.items() for i, ids in _tokenize({key: text}, encode_batch).items()}
