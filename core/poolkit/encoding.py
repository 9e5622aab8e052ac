"""Turns prompts into token ids the engine can run, or says of each prompt why it cannot be run."""

from __future__ import annotations

from collections.abc import Sequence

from poolkit.contract import PoolingParams, Prompt
from poolkit.engine import EncodedPrompt, Tokenizer
from poolkit.errors import RequestError
from poolkit.models import ModelInfo

__all__ = ["Encoder"]


class Encoder:
    """Tokenizes, truncates and range-checks the prompts of one model. Used from many threads at a time."""

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo) -> None:
        self._tokenizer = tokenizer
        self._info = info

    def encode(
        self, prompts: Sequence[Prompt], params: Sequence[PoolingParams], *, first_index: int
    ) -> list[EncodedPrompt | RequestError]:
        """Return each prompt's token ids, or the error that the caller should be told.

        Args:
            prompts: texts and token ids, in any mix.
            params: one per prompt.
            first_index: the index of `prompts[0]` in its request, for the messages.
        """
        token_ids: list[Sequence[int] | RequestError] = [
            () if isinstance(prompt, str) else prompt for prompt in prompts
        ]
        for add_special_tokens in (True, False):
            texts = {
                i: prompt
                for i, prompt in enumerate(prompts)
                if isinstance(prompt, str) and params[i].add_special_tokens is add_special_tokens
            }
            encoded = self._tokenize(list(texts.values()), add_special_tokens=add_special_tokens)
            for i, ids in zip(texts, encoded, strict=True):
                token_ids[i] = ids
        return [
            self._check(ids, prompt, wish, index)
            for index, (ids, prompt, wish) in enumerate(zip(token_ids, prompts, params, strict=True), first_index)
        ]

    def _tokenize(self, texts: list[str], *, add_special_tokens: bool) -> Sequence[Sequence[int] | RequestError]:
        if not texts:
            return []
        try:
            return self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        except RequestError as error:
            if len(texts) == 1:
                return [error]
            return [self._tokenize([text], add_special_tokens=add_special_tokens)[0] for text in texts]

    def _check(
        self, ids: Sequence[int] | RequestError, prompt: Prompt, params: PoolingParams, index: int
    ) -> EncodedPrompt | RequestError:
        if isinstance(ids, RequestError):
            return RequestError(f"Prompt {index}: {ids}", param="input")
        if not isinstance(prompt, str):
            low, high = min(ids, default=0), max(ids, default=0)
            if low < 0 or high >= self._info.vocab_size:
                return RequestError(
                    f"Prompt {index} holds token id {low if low < 0 else high}; the ids of {self._info.name} go from "
                    f"0 to {self._info.vocab_size - 1}. Send text, or ids made by this model's own tokenizer "
                    "(langchain's OpenAIEmbeddings sends another model's ids unless check_embedding_ctx_length=False).",
                    param="input",
                )
        try:
            ids = self._truncate(ids, params, affixes=_affixes(self._tokenizer, prompt, params))
        except RequestError as error:
            return error
        if not ids:
            return RequestError(
                f"Prompt {index} is empty: it has no tokens, and this model's tokenizer adds none. Send some text.",
                param="input",
            )
        if len(ids) > self._info.max_model_len:
            return RequestError(
                f"Prompt {index} has {len(ids)} tokens; {self._info.name} takes at most {self._info.max_model_len}. "
                "Shorten it, or set truncate_prompt_tokens=-1 to have it cut to that length.",
                param="input",
            )
        return EncodedPrompt(ids, params)

    def _truncate(self, ids: Sequence[int], params: PoolingParams, *, affixes: tuple[int, int]) -> Sequence[int]:
        """Return the ids cut as `params` asks, the special tokens at either end kept."""
        limit = params.truncate_prompt_tokens
        if limit is None:
            return ids
        longest = self._info.max_model_len
        if limit == -1:
            limit = longest
        before, after = affixes
        if not max(1, before + after) <= limit <= longest:
            raise RequestError(
                f"truncate_prompt_tokens is {limit}; for {self._info.name} it must lie between "
                f"{max(1, before + after)} (its special tokens) and {longest} (its maximum), or be -1 for the maximum.",
                param="truncate_prompt_tokens",
            )
        if len(ids) <= limit:
            return ids
        if params.truncation_side == "left":
            return [*ids[:before], *ids[len(ids) - (limit - before) :]]
        return [*ids[: limit - after], *ids[len(ids) - after :]]


def _affixes(tokenizer: Tokenizer, prompt: Prompt, params: PoolingParams) -> tuple[int, int]:
    """Return how many tokens at either end of a prompt are special: none where the caller sent ids."""
    return tokenizer.special_affixes if isinstance(prompt, str) and params.add_special_tokens else (0, 0)
