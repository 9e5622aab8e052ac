"""Turns prompts into token ids the engine can run, or says of each prompt why it cannot be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any

import numpy as np

from poolkit.contract import (
    EncodedPrompt,
    ModalityPrompt,
    ModalityReader,
    ModelInfo,
    PairTemplate,
    PoolingParams,
    Prompt,
    ResolvedParams,
    TemplatedText,
    TextPair,
    TextToken,
    TokenIds,
    TokenInputs,
    Tokenizer,
    UnreadInput,
)
from poolkit.errors import RequestError
from poolkit.tokenization.pairs import truncate_pair
from poolkit.tokenization.query_expansion import QueryExpansion
from poolkit.tokenization.templated import truncate_templated
from poolkit.tokenization.truncation import (
    TokenizedText,
    TokenizedTexts,
    TokenizeRequest,
    TruncatingTokenizer,
    common_prefix,
    is_long,
    min_or_none,
    truncate,
    truncate_after_prompt,
)

__all__ = ["Encoder"]

PROBE = "a"

NO_READERS: Mapping[str, ModalityReader[Any]] = MappingProxyType({})
NO_TEXTS: TokenizedTexts = MappingProxyType({})
NO_TOKENS: TokenIds = np.empty(0, np.int32)


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
        self._readers = readers
        self._query_frame = next(filter(None, (reader.query_frame for reader in readers.values())), None)
        self._expansion = QueryExpansion(tokenizer, info)
        self._special_ids = _special_ids(tokenizer)
        self._pair_template = tokenizer.pair_template
        prompts = list(info.text.prompts.values())
        self._prompt_ids = dict(zip(prompts, tokenizer.encode_batch(prompts, add_special_tokens=False), strict=True))

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
        prepared = [self._as_query(*each) for each in zip(prompts, params, strict=True)]
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
        return self._special_ids

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, as the vocabulary writes it; None if it has no such token."""
        return self._tokenizer.token_id(token)

    def tokens(self, token_ids: Sequence[int] | TokenIds) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        return self._tokenizer.tokens(token_ids)

    def shorten(self, text: str, *, tokens: int) -> str:
        """Return the start of a text that has so many tokens, or all of it where it has no more."""
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
        if not prompts or self._query_frame is not None or len(set(map(id, params))) > 1:
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
        before, after = map(len, self._affixes(one))
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
            return replace(self._encode_one(prompt, params, texts_of_prompt, index), index=index)
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
                encoded.append(self._encode_with_offsets(prompt, one, index))
            except RequestError as error:
                encoded.append(error)
        return encoded

    def _encode_with_offsets(self, text: str, params: ResolvedParams, index: int) -> EncodedPrompt:
        before, after = self._affixes(params)
        room = self._room(params, special_tokens=len(before) + len(after))
        try:
            [(ids, tokens)] = self._tokenizer.text_tokens([text], [params.prompt])
        except RequestError as error:
            raise RequestError(f"Prompt {index}: {error}", param="input") from error
        of_prompt = sum(1 for _ in takewhile(lambda token: token.is_special, tokens)) if params.prompt else 0
        kept = truncate_after_prompt(
            np.arange(len(ids), dtype=np.int32),
            prompt_length=of_prompt,
            max_length=room,
            max_text=params.max_text_tokens,
            side=params.truncation_side,
        )
        specials = [
            [TextToken(name, None, None, is_special=True) for name in self.tokens(special)]
            for special in (before, after)
        ]
        return replace(
            _encoded(np.concatenate([before, ids[kept], after]), params),
            index=index,
            text_tokens=(*specials[0], *(tokens[place] for place in kept), *specials[1]),
            prompt_length=self._left_out(params),
            cuttable=(len(before), len(before) + len(kept)),
        )

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

    def _as_query(self, prompt: Prompt, params: ResolvedParams) -> Prompt | RequestError:
        """Put around a text what the model reads around every query; leave other prompts."""
        if not isinstance(prompt, str):
            return prompt
        if self._info.text.only_queries and params.input_type == "document":
            others = " or ".join(self._readers)
            return RequestError(
                f"{self._info.name} reads texts as queries alone. Send documents of modality {others}.",
                param="documents",
            )
        if self._query_frame is None:
            return prompt
        prefix, suffix = self._query_frame
        return TemplatedText(prefix + params.prompt, prompt, suffix)

    def _max_text_of_templated(self, params: ResolvedParams) -> int | None:
        """Return how many tokens the text of a templated one may have by itself."""
        return params.max_tokens_per_doc if self._query_frame is None else params.max_tokens_per_query

    def _requests_or_error(
        self, prompt: Prompt | RequestError, params: ResolvedParams
    ) -> tuple[TokenizeRequest, ...] | RequestError:
        if isinstance(prompt, RequestError):
            return prompt
        try:
            return self._requests(prompt, params)
        except RequestError as error:
            return error

    def _requests(self, prompt: Prompt, params: ResolvedParams) -> tuple[TokenizeRequest, ...]:
        """Return which texts have to be tokenized for a prompt, and how much of each."""
        side = params.truncation_side
        match prompt:
            case str():
                specials, limit = sum(map(len, self._affixes(params))), params.max_text_tokens
                of_text = None if limit is None else len(self._prompt_ids.get(params.prompt, ())) + limit
                count = min_or_none(of_text, self._room(params, special_tokens=specials))
                return (TokenizeRequest(params.prompt + prompt, count, side),)
            case TextPair():
                return _pair_requests(
                    prompt, params, room=self._room(params, special_tokens=self._template(params).size)
                )
            case TemplatedText():
                count = min_or_none(self._max_text_of_templated(params), self._room(params, special_tokens=0))
                is_cut = count is not None and is_long(prompt.text, count)
                return () if is_cut else (TokenizeRequest(prompt.prefix + prompt.text + prompt.suffix),)
        return ()

    def _encode_one(
        self, prompt: Prompt, params: ResolvedParams, texts: Sequence[TokenizedText], index: int
    ) -> EncodedPrompt:
        match prompt:
            case str():
                return self._text(prompt, params, *texts)
            case TextPair():
                return self._pair(prompt, params, *texts)
            case TemplatedText():
                return _encoded(self._templated(prompt, params, texts, index), params)
            case ModalityPrompt():
                return self._unread(prompt, params, index)
        return self._token_inputs(prompt, params, index)

    def _text(self, text: str, params: ResolvedParams, tokenized: TokenizedText) -> EncodedPrompt:
        before, after = self._affixes(params)
        prompt_ids = self._prompt_ids.get(params.prompt, NO_TOKENS)
        ids, side = tokenized.token_ids, params.truncation_side
        if len(prompt_ids) and side == "left" and not tokenized.is_whole:
            request = TokenizeRequest(params.prompt + text, len(prompt_ids))
            head = self._truncating.tokenize([request])[request]
            if isinstance(head, RequestError):
                raise head
            ids = np.concatenate([head.token_ids[: common_prefix(prompt_ids, head.token_ids)], ids])
        prompt_length = common_prefix(prompt_ids, ids)
        kept = truncate_after_prompt(
            ids,
            prompt_length=prompt_length,
            max_length=self._room(params, special_tokens=len(before) + len(after)),
            max_text=params.max_text_tokens,
            side=side,
        )
        whole = np.concatenate([before, kept, after])
        return replace(
            _encoded(whole, params),
            prompt_length=self._left_out(params),
            cuttable=(len(before), len(whole) - len(after)),
        )

    def _left_out(self, params: ResolvedParams) -> int:
        """Return how many tokens of a text behind its prompt are left out of pooling."""
        prompt_ids = self._prompt_ids.get(params.prompt, NO_TOKENS)
        if self._info.pooling.includes_prompt or not len(prompt_ids):
            return 0
        before, after = self._affixes(params)
        # The count of sentence-transformers: the prompt between special tokens, but for the last of these.
        return len(prompt_ids) + len(before) + max(0, len(after) - 1)

    def _pair(
        self, pair: TextPair, params: ResolvedParams, first: TokenizedText, second: TokenizedText
    ) -> EncodedPrompt:
        """Return a pair, its texts truncated as `params` ask and the special tokens kept."""
        template = self._template(params)
        room = self._room(params, special_tokens=template.size)
        halves = _truncate_halves(first, second, params)
        side = params.truncation_side
        if room is not None:
            if not (first.is_whole and second.is_whole) and min(map(len, halves)) > room:
                halves = self._whole_halves(pair, params)  # which of the two is longer decides how both are cut
            kept = truncate_pair(len(halves[0]), len(halves[1]), room)
            halves = truncate(halves[0], kept[0], side), truncate(halves[1], kept[1], side)
        ids, types = template.join(*halves)
        end = len(ids) - len(template.after)
        return replace(_encoded(ids, params, types), cuttable=(end - len(halves[1]), end))

    def _whole_halves(self, pair: TextPair, params: ResolvedParams) -> tuple[TokenIds, TokenIds]:
        requests = _pair_requests(pair, params, room=None)
        texts = self._truncating.tokenize(requests)
        first, second = (texts[request] for request in requests)
        for text in (first, second):
            if isinstance(text, RequestError):
                raise text
        assert isinstance(first, TokenizedText)
        assert isinstance(second, TokenizedText)
        return _truncate_halves(first, second, params)

    def _templated(
        self, templated: TemplatedText, params: ResolvedParams, texts: Sequence[TokenizedText], index: int
    ) -> TokenIds:
        room, limit = self._room(params, special_tokens=0), self._max_text_of_templated(params)
        most = min_or_none(room, limit)
        if texts and (most is None or len(texts[0].token_ids) <= most):
            return texts[0].token_ids
        try:
            return truncate_templated(
                templated, self._tokenizer, max_length=room, max_text=limit, side=params.truncation_side
            )
        except RequestError as error:
            raise RequestError(f"Prompt {index}: {error}.", param="input") from error

    def _token_inputs(
        self, prompt: TokenInputs | Sequence[int] | TokenIds, params: ResolvedParams, index: int
    ) -> EncodedPrompt:
        inputs = prompt if isinstance(prompt, TokenInputs) else TokenInputs(prompt)
        ids = self._check_range(inputs.token_ids, index)
        room, side = self._room(params, special_tokens=0), params.truncation_side
        ids = truncate(ids, room, side)
        types = None
        if inputs.token_type_ids is not None:
            types = truncate(np.asarray(inputs.token_type_ids, np.int32), room, side)
        cuttable = self._cuttable(ids) if types is None else None
        return replace(_encoded(ids, params, types), prompt_length=inputs.prompt_length, cuttable=cuttable)

    def _cuttable(self, ids: TokenIds) -> tuple[int, int]:
        """Return where the tokens of a text lie between special tokens; all of them where there are none."""
        before, after = self._special_ids
        end = len(ids) - len(after)
        has_specials = np.array_equal(ids[: len(before)], before) and np.array_equal(ids[max(0, end) :], after)
        return (len(before), end) if has_specials and end >= len(before) else (0, len(ids))

    def _unread(self, prompt: ModalityPrompt, params: ResolvedParams, index: int) -> EncodedPrompt:
        """Return a prompt of another modality than text, which is decoded only if it runs."""
        modality = prompt.modality
        reader = self._readers.get(modality)
        if reader is None:
            reads = " and ".join(("text", *self._readers))
            raise RequestError(
                f"Prompt {index} is of modality {modality!r}; {self._info.name} reads {reads}. Send that, or serve a "
                f"model that reads {modality!r}.",
                param="input",
            )

        def read() -> EncodedPrompt:
            try:
                token_ids, seen = reader.read(prompt)
            except RequestError as error:
                raise RequestError(f"Prompt {index}: {error}.", param="input") from error
            return EncodedPrompt(token_ids, params, index=index, input=seen)

        return EncodedPrompt(NO_TOKENS, params, index=index, unread=UnreadInput(modality, prompt.digest(), read))

    def _affixes(self, params: ResolvedParams) -> tuple[TokenIds, TokenIds]:
        return self._special_ids if params.add_special_tokens else (NO_TOKENS, NO_TOKENS)

    def _template(self, params: ResolvedParams) -> PairTemplate:
        return self._pair_template if params.add_special_tokens else self._pair_template.without_special_tokens()

    def _check_range(self, token_ids: Sequence[int] | TokenIds, index: int) -> TokenIds:
        """Return token ids as an array, or raise RequestError if one is not the model's."""
        try:
            ids = np.asarray(token_ids, np.int64)
            low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        except OverflowError:
            low, high = min(token_ids), max(token_ids)
        if low < 0 or high >= self._info.vocab_size:
            raise RequestError(
                f"Prompt {index} holds token id {low if low < 0 else high}; the ids of {self._info.name} go from "
                f"0 to {self._info.vocab_size - 1}. Send text, or ids made by this model's own tokenizer "
                "(langchain's OpenAIEmbeddings sends another model's ids unless check_embedding_ctx_length=False).",
                param="input",
            )
        return ids.astype(np.int32)

    def _room(self, params: ResolvedParams, *, special_tokens: int) -> int | None:
        """Return how many tokens a prompt may keep beside its special tokens, or None where it must not be cut."""
        limit, longest = params.max_tokens, self._info.longest(params.input_type)
        if limit is None:
            return None
        if not max(1, special_tokens) <= limit <= longest:
            raise RequestError(
                f"truncate_prompt_tokens is {limit}; for {self._info.name} it must lie between "
                f"{max(1, special_tokens)} (its special tokens) and {longest} (its maximum), or be -1 for the maximum.",
                param="truncate_prompt_tokens",
            )
        return limit - special_tokens


def _encoded(ids: TokenIds, params: ResolvedParams, types: TokenIds | None = None) -> EncodedPrompt:
    return EncodedPrompt(ids, params, types, is_query=params.input_type == "query")


def _special_ids(tokenizer: Tokenizer) -> tuple[TokenIds, TokenIds]:
    [ids] = tokenizer.encode_batch([PROBE], add_special_tokens=True)
    before, after = tokenizer.special_affixes
    return ids[:before], ids[len(ids) - after :]


def _pair_requests(
    pair: TextPair, params: ResolvedParams, *, room: int | None
) -> tuple[TokenizeRequest, TokenizeRequest]:
    """Return how much has to be tokenized of a pair, whose texts have `room` tokens together; None for any number.

    One token more than fits is tokenized: it shows that the text is too long.
    """
    most, side = None if room is None else room + 1, params.truncation_side
    return (
        TokenizeRequest(pair.first, min_or_none(params.max_tokens_per_query, most), side),
        TokenizeRequest(pair.second, min_or_none(params.max_tokens_per_doc, most), side),
    )


def _truncate_halves(first: TokenizedText, second: TokenizedText, params: ResolvedParams) -> tuple[TokenIds, TokenIds]:
    """Return the tokens of the texts of a pair, each truncated to what it may have by itself."""
    side = params.truncation_side
    return (
        truncate(first.token_ids, params.max_tokens_per_query, side),
        truncate(second.token_ids, params.max_tokens_per_doc, side),
    )
