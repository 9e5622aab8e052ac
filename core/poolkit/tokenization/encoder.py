"""Turns prompts into token ids the engine can run, or says of each prompt why it cannot be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from poolkit.contract import (
    EncodedPrompt,
    ModalityReader,
    ModelInfo,
    PoolingParams,
    Prompt,
    ResolvedParams,
    TextPair,
    TokenIds,
    Tokenizer,
)
from poolkit.errors import RequestError
from poolkit.tokenization.composer import PromptComposer
from poolkit.tokenization.query_expansion import QueryExpansion
from poolkit.tokenization.truncation import (
    TokenizedText,
    TokenizedTexts,
    TokenizeRequest,
    TruncatingTokenizer,
    truncate,
)

__all__ = ["Encoder"]

NO_READERS: Mapping[str, ModalityReader[Any]] = MappingProxyType({})
NO_TEXTS: TokenizedTexts = MappingProxyType({})


class Encoder:
    """Tokenizes, truncates and range-checks the prompts of one model. Used from many threads at a time.

    Args:
        tokenizer: of the model.
        info: the model as its files describe it.
        resolve: fills in the defaults of parameters, for the task that is served.
        readers: of the modalities that the model reads beside text, by name.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        info: ModelInfo,
        resolve: Callable[[PoolingParams], ResolvedParams],
        *,
        readers: Mapping[str, ModalityReader[Any]] = NO_READERS,
    ) -> None:
        self._tokenizer = tokenizer
        self._truncating = TruncatingTokenizer(tokenizer)
        self._info = info
        self._resolve = resolve
        self._composer = PromptComposer(tokenizer, self._truncating, info, readers)
        self._expansion = QueryExpansion(tokenizer, info)

    def resolve(self, params: PoolingParams) -> ResolvedParams:
        """Return the parameters with every default filled in.

        Raises RequestError where the task does not know one of them, or the model cannot honour it.
        """
        return self._resolve(params)

    def encode(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[ResolvedParams],
        *,
        first_index: int = 0,
        refuses_long: bool = True,
        with_text_tokens: bool = False,
        known: TokenizedTexts = NO_TEXTS,
    ) -> list[EncodedPrompt | RequestError]:
        """Return each prompt tokenized, or the error that the caller should be told.

        Of a text that will be truncated, no more is tokenized than shows which tokens stay.

        Args:
            prompts: in any mix.
            params: one per prompt.
            first_index: the index of `prompts[0]` in its request, for the messages.
            refuses_long: refuse a prompt that is longer than the model's maximum, or cut it if the operator said so.
            with_text_tokens: return the tokens of texts with their offsets too.
            known: what `tokenize_shared` has tokenized already.
        """
        if not refuses_long:
            params = [one if one.truncates else replace(one, max_tokens=None) for one in params]
        if not with_text_tokens and (encoded := self._encode_plain_texts(prompts, params, first_index)) is not None:
            return self._finish(encoded, fits=refuses_long)
        prepared = [self._composer.as_query(*each) for each in zip(prompts, params, strict=True)]
        if with_text_tokens:
            return self._finish(self._encode_text_tokens(prepared, params, first_index), fits=refuses_long)
        requests = [self._requests_or_error(*each) for each in zip(prepared, params, strict=True)]
        wanted = (one for some in requests if not isinstance(some, RequestError) for one in some)
        texts = {**known, **self._truncating.tokenize(one for one in wanted if one not in known)}
        each = enumerate(zip(prepared, params, requests, strict=True), first_index)
        return self._finish(
            [self._encode_or_error(prompt, one, some, texts, index) for index, (prompt, one, some) in each],
            fits=refuses_long,
        )

    def tokenize_shared(self, prompts: Sequence[Prompt], params: Sequence[ResolvedParams]) -> TokenizedTexts:
        """Tokenize the texts that stand in several pairs, a query with its documents, for `encode` to know them.

        So each is tokenized once, however many slices the prompts are encoded in.
        """
        counts: Counter[TokenizeRequest] = Counter()
        for prompt, one in zip(prompts, params, strict=True):
            if isinstance(prompt, TextPair):
                requests = self._requests_or_error(prompt, one)
                counts.update(() if isinstance(requests, RequestError) else requests)
        return self._truncating.tokenize(one for one, count in counts.items() if count > 1)

    def special_ids(self) -> tuple[TokenIds, TokenIds]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        return self._composer.special_ids

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, as the vocabulary writes it; None if it has no such token."""
        return self._tokenizer.token_id(token)

    def tokens(self, token_ids: Sequence[int] | TokenIds) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        return self._tokenizer.tokens(token_ids)

    def shorten(self, text: str, *, tokens: int) -> str:
        """Return the start of a text that its first so many tokens hold, or all of it where it has no more.

        By itself that start may have other tokens at its end: what followed them is gone.
        """
        offsets = self._truncating.find_offsets(text, tokens + 1)
        if offsets is not None:
            # A character whose bytes are several tokens stays whole.
            return text if len(offsets) <= tokens else text[: min(offsets[tokens - 1][1], offsets[tokens][0])]
        [(_, found)] = self._tokenizer.text_tokens([text], [""])
        return text if len(found) <= tokens else self._tokenizer.join([token.token for token in found[:tokens]])

    def join(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens, as the vocabulary writes them."""
        return self._tokenizer.join(tokens)

    def _encode_plain_texts(
        self, prompts: Sequence[Prompt], params: Sequence[ResolvedParams], first_index: int
    ) -> list[EncodedPrompt | RequestError] | None:
        """Encode texts that are neither truncated nor put behind a prompt, in one call of the tokenizer.

        None where that is not all that there is to do: the general way then finds out what is.
        """
        if not prompts or self._composer.query_frame is not None or len(set(map(id, params))) > 1:
            return None
        one = params[0]
        if one.max_tokens is not None or one.max_text_tokens is not None or one.prompt:
            return None
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(texts) < len(prompts):
            return None
        try:
            ids_of_each = self._tokenizer.encode_batch(texts, add_special_tokens=one.add_special_tokens)
        except RequestError:
            return None
        before, after = map(len, self._composer.affixes(one))
        is_query = one.input_type == "query"
        return [
            EncodedPrompt(ids, one, is_query=is_query, cuttable=(before, len(ids) - after), index=index)
            for index, ids in enumerate(ids_of_each, first_index)
        ]

    def _encode_or_error(
        self,
        prompt: Prompt | RequestError,
        params: ResolvedParams,
        requests: tuple[TokenizeRequest, ...] | RequestError,
        texts: TokenizedTexts,
        index: int,
    ) -> EncodedPrompt | RequestError:
        if isinstance(prompt, RequestError):
            return prompt
        if isinstance(requests, RequestError):
            return requests
        found = [texts[request] for request in requests]
        for text in found:
            if isinstance(text, RequestError):
                return RequestError(f"Prompt {index}: {text}", param="input")
        try:
            texts_of_prompt = [one for one in found if isinstance(one, TokenizedText)]
            return replace(self._composer.compose(prompt, params, texts_of_prompt, index), index=index)
        except RequestError as error:
            return error

    def _encode_text_tokens(
        self, prompts: Sequence[Prompt | RequestError], params: Sequence[ResolvedParams], first_index: int
    ) -> list[EncodedPrompt | RequestError]:
        """Encode texts with the offsets of their tokens. Other prompts have none, and are refused."""
        encoded: list[EncodedPrompt | RequestError] = []
        for index, (prompt, one) in enumerate(zip(prompts, params, strict=True), first_index):
            try:
                if isinstance(prompt, RequestError):
                    raise prompt
                if not isinstance(prompt, str):
                    raise RequestError(f"Prompt {index} is no text, and only a text has places in it.", param="input")
                encoded.append(self._composer.compose_with_offsets(prompt, one, index))
            except RequestError as error:
                encoded.append(error)
        return encoded

    def fit(self, prompt: EncodedPrompt) -> EncodedPrompt | RequestError:
        """Return a prompt as it runs: no longer than the model's maximum, queries expanded; or why it cannot run."""
        longest = self._info.longest(prompt.params.input_type)
        count = len(prompt.token_ids)
        if count > longest and self._info.config.auto_truncate and prompt.input is None:
            side = prompt.params.truncation_side
            types = prompt.token_type_ids
            prompt = replace(
                prompt,
                token_ids=truncate(prompt.token_ids, longest, side),
                token_type_ids=None if types is None else truncate(types, longest, side),
                cuttable=None,
            )
        elif count > longest:
            return RequestError(
                f"Prompt {prompt.index} has {count} tokens; {self._info.name} takes at most {longest}. "
                "Shorten it, or set truncate_prompt_tokens=-1 to have it cut to that length.",
                param="input",
            )
        return self._expansion.expand(prompt)

    def read(self, prompt: EncodedPrompt) -> EncodedPrompt | RequestError:
        """Return a prompt with its input decoded, fit to the model; or why it cannot be read."""
        if prompt.unread is None:
            return prompt
        try:
            return self.fit(prompt.unread.read())
        except RequestError as error:
            return error

    def _finish(self, encoded: list[EncodedPrompt | RequestError], *, fits: bool) -> list[EncodedPrompt | RequestError]:
        """Refuse prompts without tokens; fit the others to the model, if they are to fit."""
        for place, prompt in enumerate(encoded):
            if isinstance(prompt, RequestError) or prompt.unread is not None:
                continue
            error = self._emptiness(prompt)
            if error is not None:
                encoded[place] = error
            elif fits:
                encoded[place] = self.fit(prompt)
        return encoded

    def _emptiness(self, prompt: EncodedPrompt) -> RequestError | None:
        count = len(prompt.token_ids)
        if count == 0:
            return RequestError(
                f"Prompt {prompt.index} is empty: it has no tokens, and this model's tokenizer adds none. Send some "
                "text.",
                param="input",
            )
        if count <= prompt.prompt_length:
            return RequestError(
                f"Prompt {prompt.index} has {count} tokens, all of them the prompt's that {self._info.name} puts "
                "before a text and leaves out of pooling. Send a text, and allow more than so many tokens.",
                param="input",
            )
        return None

    def _requests_or_error(
        self, prompt: Prompt | RequestError, params: ResolvedParams
    ) -> tuple[TokenizeRequest, ...] | RequestError:
        if isinstance(prompt, RequestError):
            return prompt
        try:
            return self._composer.requests(prompt, params)
        except RequestError as error:
            return error
