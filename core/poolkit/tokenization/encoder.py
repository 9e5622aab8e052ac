"""Turns prompts into token ids the engine can run, or says of each prompt why it cannot be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import Any, get_args

from poolkit.contract import (
    Decision,
    EncodedPrompt,
    InputType,
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
from poolkit.tokenization.pairs import PairBatch
from poolkit.tokenization.query_expansion import QueryExpansion
from poolkit.tokenization.truncation import (
    TokenizedText,
    TokenizedTexts,
    TokenizeRequest,
    TruncatingTokenizer,
    is_long,
    min_or_none,
    truncate,
)

__all__ = ["Encoder"]

NO_READERS: Mapping[str, ModalityReader[Any]] = MappingProxyType({})
NO_TEXTS: TokenizedTexts = MappingProxyType({})
INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)


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
        self._always_fits = min(map(info.longest, INPUT_TYPES))

    @property
    def decisions(self) -> Sequence[Decision]:
        """The choice of the tokenizer, for the start-up report."""
        decision: Decision | None = getattr(self._tokenizer, "decision", None)
        return () if decision is None else (decision,)

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
            params = _without_limits(params)
        if not with_text_tokens and (encoded := self._encode_plain_texts(prompts, params, first_index)) is not None:
            return self._finish(encoded, fits=refuses_long)
        prepared = [
            self._composer.as_query(prompt, one) if isinstance(prompt, str) else prompt
            for prompt, one in zip(prompts, params, strict=True)
        ]
        encode = self._encode_text_tokens if with_text_tokens else partial(self._encode_any, known=known)
        return self._finish(encode(prepared, params, first_index), fits=refuses_long)

    def tokenize_shared(self, prompts: Sequence[Prompt], params: Sequence[ResolvedParams]) -> TokenizedTexts:
        """Tokenize the texts that stand in several pairs, a query with its documents, for `encode` to know them.

        So each is tokenized once, however many slices the prompts are encoded in.
        """
        batches = [batch for _, batch in self._pair_batches(prompts, params) if isinstance(batch, PairBatch)]
        return self._truncating.tokenize(request for batch in batches for request in batch.shared_requests())

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
        """Encode texts that no prompt is put before and that are not far too long, in one call of the tokenizer.

        None where that is not all that there is to do: the general way then finds out what is.
        """
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if not texts or len(texts) < len(prompts) or self._composer.query_frame is not None:
            return None
        limits = self._plain_limits(params)
        if limits is None:
            return None
        tightest = min_or_none(*limits.values())
        if tightest is not None and is_long(max(texts, key=len), self._truncating.excerpt_from * tightest):
            return None
        try:
            ids_of_each = self._tokenizer.encode_batch(texts, add_special_tokens=params[0].add_special_tokens)
        except RequestError:
            return None
        before, after = map(len, self._composer.affixes(params[0]))
        encoded: list[EncodedPrompt | RequestError] = []
        for text, one, ids in zip(texts, params, ids_of_each, strict=True):
            index, end, limit = first_index + len(encoded), len(ids) - after, limits[id(one)]
            is_query = one.input_type == "query"
            prompt = EncodedPrompt(ids, one, is_query=is_query, cuttable=(before, end), index=index)
            if limit is not None and end - before > limit:
                whole = TokenizedText(ids[before:end], is_whole=True)
                prompt = replace(self._composer.compose(text, one, [whole], index), index=index)
            encoded.append(prompt)
        return encoded

    def _plain_limits(self, params: Sequence[ResolvedParams]) -> Mapping[int, int | None] | None:
        """Return how many tokens of a text each different one of these keeps beside special tokens, by its `id`.

        None where they put a prompt before a text, ask for what cannot be, or differ in their special tokens.
        """
        distinct = {id(one): one for one in params}
        if len({one.add_special_tokens for one in distinct.values()}) > 1:
            return None
        if any(one.prompt for one in distinct.values()):
            return None
        try:
            return {number: self._composer.requests("", one)[0].max_tokens for number, one in distinct.items()}
        except RequestError:
            return None

    def _encode_any(
        self,
        prompts: Sequence[Prompt | RequestError],
        params: Sequence[ResolvedParams],
        first_index: int,
        *,
        known: TokenizedTexts,
    ) -> list[EncodedPrompt | RequestError]:
        """Encode prompts in any mix: the texts of all of them in one call of the tokenizer, pairs together."""
        batches = self._pair_batches(prompts, params)
        requests: list[tuple[TokenizeRequest, ...] | RequestError] = [
            () if isinstance(prompt, TextPair) else self._requests_or_error(prompt, one)
            for prompt, one in zip(prompts, params, strict=True)
        ]
        wanted = [one for some in requests if not isinstance(some, RequestError) for one in some]
        wanted += [one for _, batch in batches if isinstance(batch, PairBatch) for one in batch.requests()]
        texts = {**known, **self._truncating.tokenize([one for one in wanted if one not in known])}
        of_pairs: dict[int, EncodedPrompt | RequestError] = {}
        for places, batch in batches:
            indices = [first_index + place for place in places]
            composed = (
                repeat(batch) if isinstance(batch, RequestError) else batch.compose(texts, self._truncating, indices)
            )
            of_pairs.update(zip(places, composed, strict=False))
        return [
            of_pairs[place]
            if isinstance(prompt, TextPair)
            else self._encode_or_error(prompt, one, some, texts, first_index + place)
            for place, (prompt, one, some) in enumerate(zip(prompts, params, requests, strict=True))
        ]

    def _pair_batches(
        self, prompts: Sequence[Prompt | RequestError], params: Sequence[ResolvedParams]
    ) -> list[tuple[list[int], PairBatch | RequestError]]:
        """Return the pairs of texts among some prompts, those with the same parameters together, with their places."""
        places_of: dict[int, list[int]] = {}
        for place, (prompt, one) in enumerate(zip(prompts, params, strict=True)):
            if isinstance(prompt, TextPair):
                places_of.setdefault(id(one), []).append(place)
        batches: list[tuple[list[int], PairBatch | RequestError]] = []
        for places in places_of.values():
            pairs = [pair for place in places if isinstance(pair := prompts[place], TextPair)]
            try:
                batches.append((places, self._composer.pairs(pairs, params[places[0]])))
            except RequestError as error:
                batches.append((places, error))
        return batches

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
            count = len(prompt.token_ids)
            if count <= prompt.prompt_length:
                encoded[place] = self._emptiness(prompt)
            elif fits and (count > self._always_fits or self._expansion.is_needed):
                encoded[place] = self.fit(prompt)
        return encoded

    def _emptiness(self, prompt: EncodedPrompt) -> RequestError:
        count = len(prompt.token_ids)
        if count == 0:
            return RequestError(
                f"Prompt {prompt.index} is empty: it has no tokens, and this model's tokenizer adds none. Send some "
                "text.",
                param="input",
            )
        return RequestError(
            f"Prompt {prompt.index} has {count} tokens, all of them the prompt's that {self._info.name} puts "
            "before a text and leaves out of pooling. Send a text, and allow more than so many tokens.",
            param="input",
        )

    def _requests_or_error(
        self, prompt: Prompt | RequestError, params: ResolvedParams
    ) -> tuple[TokenizeRequest, ...] | RequestError:
        if isinstance(prompt, RequestError):
            return prompt
        try:
            return self._composer.requests(prompt, params)
        except RequestError as error:
            return error


def _without_limits(params: Sequence[ResolvedParams]) -> list[ResolvedParams]:
    """Return parameters that cut nothing but for a request that asks for it. What was one object stays one."""
    changed = {
        number: one if one.truncates else replace(one, max_tokens=None)
        for number, one in {id(one): one for one in params}.items()
    }
    return [changed[id(one)] for one in params]
