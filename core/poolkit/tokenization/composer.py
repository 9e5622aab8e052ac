"""Composes the token ids of a prompt: one way for each kind of prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np

from poolkit.contract import (
    EncodedPrompt,
    ModalityPrompt,
    ModalityReader,
    ModelInfo,
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
from poolkit.tokenization.pairs import PairBatch
from poolkit.tokenization.templated import truncate_templated
from poolkit.tokenization.truncation import (
    TokenizedText,
    TokenizeRequest,
    TruncatingTokenizer,
    common_prefix,
    is_long,
    min_or_none,
    truncate,
    truncate_after_prompt,
)

__all__ = ["PromptComposer"]

PROBE = "a"

NO_TOKENS: TokenIds = np.empty(0, np.int32)


class PromptComposer:
    """Says how much of which texts has to be tokenized for a prompt, and composes its token ids of these.

    Args:
        tokenizer: of the model.
        truncating: tokenizes no more of a text than is needed.
        info: the model as its files describe it.
        readers: of the modalities that the model reads beside text, by name.

    Attributes:
        special_ids: those that the tokenizer puts before and after a text.
        query_frame: what stands around a text that another modality is searched with.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        truncating: TruncatingTokenizer,
        info: ModelInfo,
        readers: Mapping[str, ModalityReader[Any]],
    ) -> None:
        self._tokenizer = tokenizer
        self._truncating = truncating
        self._info = info
        self._readers = readers
        self._pair_template = tokenizer.pair_template
        self.special_ids = _special_ids(tokenizer)
        self.query_frame = next(filter(None, (reader.query_frame for reader in readers.values())), None)
        prompts = list(info.text.prompts.values())
        self._prompt_ids = dict(zip(prompts, tokenizer.encode_batch(prompts, add_special_tokens=False), strict=True))

    def as_query(self, text: str, params: ResolvedParams) -> Prompt | RequestError:
        """Put around a text what the model reads around every query."""
        if self._info.text.only_queries and params.input_type == "document":
            others = " or ".join(self._readers)
            return RequestError(
                f"{self._info.name} reads texts as queries alone. Send documents of modality {others}.",
                param="documents",
            )
        if self.query_frame is None:
            return text
        prefix, suffix = self.query_frame
        return TemplatedText(prefix + params.prompt, text, suffix)

    def pairs(self, pairs: Sequence[TextPair], params: ResolvedParams) -> PairBatch:
        """Return what composes pairs of texts.

        Raises RequestError where they cannot be truncated as is asked.
        """
        template = self._pair_template if params.add_special_tokens else self._pair_template.without_special_tokens()
        return PairBatch(pairs, params, template=template, room=self._room(params, special_tokens=template.size))

    def requests(self, prompt: Prompt, params: ResolvedParams) -> tuple[TokenizeRequest, ...]:
        """Return which texts have to be tokenized for a prompt that is no pair, and how much of each."""
        side = params.truncation_side
        match prompt:
            case str():
                specials, limit = sum(map(len, self.affixes(params))), params.max_text_tokens
                of_text = None if limit is None else len(self._prompt_ids.get(params.prompt, ())) + limit
                count = min_or_none(of_text, self._room(params, special_tokens=specials))
                return (TokenizeRequest(params.prompt + prompt, count, side),)
            case TemplatedText():
                count = min_or_none(self._max_text_of_templated(params), self._room(params, special_tokens=0))
                is_cut = count is not None and is_long(prompt.text, count)
                return () if is_cut else (TokenizeRequest(prompt.prefix + prompt.text + prompt.suffix),)
        return ()

    def compose(
        self, prompt: Prompt, params: ResolvedParams, texts: Sequence[TokenizedText], index: int
    ) -> EncodedPrompt:
        """Return a prompt that is no pair as token ids, given what `requests` asked for.

        Raises RequestError where that cannot be.
        """
        match prompt:
            case str():
                return self._text(prompt, params, *texts)
            case TemplatedText():
                return _encoded(self._templated(prompt, params, texts, index), params)
            case ModalityPrompt():
                return self._unread(prompt, params, index)
        assert not isinstance(prompt, TextPair)
        return self._token_inputs(prompt, params, index)

    def compose_with_offsets(self, text: str, params: ResolvedParams, index: int) -> EncodedPrompt:
        """Return a text as token ids, with the offsets of its tokens.

        Raises RequestError where that cannot be.
        """
        before, after = self.affixes(params)
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
            [TextToken(name, None, None, is_special=True) for name in self._tokenizer.tokens(special)]
            for special in (before, after)
        ]
        return replace(
            _encoded(np.concatenate([before, ids[kept], after]), params),
            index=index,
            text_tokens=(*specials[0], *(tokens[place] for place in kept), *specials[1]),
            prompt_length=self._left_out(params),
            cuttable=(len(before), len(before) + len(kept)),
        )

    def affixes(self, params: ResolvedParams) -> tuple[TokenIds, TokenIds]:
        """Return the special tokens before and after a text."""
        return self.special_ids if params.add_special_tokens else (NO_TOKENS, NO_TOKENS)

    def _text(self, text: str, params: ResolvedParams, tokenized: TokenizedText) -> EncodedPrompt:
        before, after = self.affixes(params)
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
        before, after = self.affixes(params)
        # The count of sentence-transformers: the prompt between special tokens, but for the last of these.
        return len(prompt_ids) + len(before) + max(0, len(after) - 1)

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

    def _max_text_of_templated(self, params: ResolvedParams) -> int | None:
        """Return how many tokens the text of a templated one may have by itself."""
        return params.max_tokens_per_doc if self.query_frame is None else params.max_tokens_per_query

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
        before, after = self.special_ids
        end = len(ids) - len(after)
        has_specials = np.array_equal(ids[: len(before)], before) and np.array_equal(ids[max(0, end) :], after)
        return (len(before), end) if has_specials and end >= len(before) else (0, len(ids))

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
