"""Turns prompts into token ids the engine can run, or says of each prompt why it cannot be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from types import MappingProxyType

from poolkit.contract import (
    EncodedPrompt,
    ImagePrompt,
    PairTemplate,
    PoolingParams,
    Prompt,
    TemplatedText,
    TextPair,
    TextToken,
    TokenInputs,
    Tokenizer,
)
from poolkit.errors import RequestError
from poolkit.models import ModelInfo
from poolkit.tokenization._cutting import cut, cut_halves, keep, least, limit_of, shared, wanted_halves
from poolkit.tokenization._prompts import find_prompt
from poolkit.tokenization._templated import cut_frame
from poolkit.tokenization.images import ImageReader
from poolkit.tokenization.pairs import cut_pair
from poolkit.tokenization.query_expansion import QueryExpansion
from poolkit.tokenization.truncation import Reader, Reading, Readings, Wanted, is_long, pick, shown

__all__ = ["Encoder"]

PROBE = "a"

NOTHING_KNOWN: Readings = MappingProxyType({})


class Encoder:
    """Tokenizes, truncates and range-checks the prompts of one model. Used from many threads at a time."""

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo, *, images: ImageReader | None = None) -> None:
        self._tokenizer = tokenizer
        self._reader = Reader(tokenizer)
        self._info = info
        self._images = images
        self._query_frame = images.frame if images is not None else None
        self._expansion = QueryExpansion(tokenizer, info)
        self._special_ids = _special_ids(tokenizer)
        prompts = list(info.text.prompts.values())
        self._prompt_ids = dict(zip(prompts, tokenizer.encode_batch(prompts, add_special_tokens=False), strict=True))

    def encode(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[PoolingParams],
        *,
        first_index: int,
        refuses_long: bool = True,
        known: Readings = NOTHING_KNOWN,
    ) -> list[EncodedPrompt | RequestError]:
        """Return each prompt's token ids, or the error that the caller should be told.

        Of a text that will be cut, no more is tokenized than shows which tokens stay.

        Args:
            prompts: texts, pairs of texts, texts in their frames, token ids of any of these, and images, in any mix.
            params: one per prompt.
            first_index: the index of `prompts[0]` in its request, for the messages.
            refuses_long: whether a prompt may not be longer than the model's maximum: what would run may not, and is
                cut to it where the operator wants that.
            known: what `read_shared` has read already.
        """
        if refuses_long:
            params = [self._auto_truncated(wish) for wish in params]
        framed = [self._as_query(prompt, wish) for prompt, wish in zip(prompts, params, strict=True)]
        wanted = [self._wanted_or_error(prompt, wish) for prompt, wish in zip(framed, params, strict=True)]
        texts = (one for some in wanted if not isinstance(some, RequestError) for one in some)
        readings = {**known, **self._reader.read(one for one in texts if one not in known)}
        encoded: list[EncodedPrompt | RequestError] = []
        for index, (prompt, wish, some) in enumerate(zip(framed, params, wanted, strict=True), first_index):
            try:
                found = pick(some, readings, index)
                assert not isinstance(prompt, RequestError)
                one = self._encode_one(prompt, wish, found, index)
                if refuses_long:
                    self._check_length(one, index)
                encoded.append(self._expansion.fill_up(one))
            except RequestError as error:
                encoded.append(error)
        return encoded

    def read_shared(self, prompts: Sequence[Prompt], params: Sequence[PoolingParams]) -> Readings:
        """Read the texts that stand in several pairs, a query with its documents, for `encode` to know them.

        So each is tokenized once, however many parts the prompts are encoded in.
        """
        counts: Counter[Wanted] = Counter()
        for prompt, wish in zip(prompts, params, strict=True):
            if isinstance(prompt, TextPair):
                wanted = self._wanted_or_error(prompt, self._auto_truncated(wish))
                counts.update(() if isinstance(wanted, RequestError) else wanted)
        return self._reader.read(one for one, count in counts.items() if count > 1)

    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        return self._special_ids

    def halves(self, pair: TextPair, params: PoolingParams) -> tuple[Sequence[int], Sequence[int]]:
        """Return the token ids of the two texts of a pair, without special tokens.

        Each is as long as `params` let it be by itself, however long the pair becomes.

        Raises RequestError where a text is not valid Unicode.
        """
        wanted = wanted_halves(pair, params, room=None)
        readings = self._reader.read(wanted)
        first, second = (shown(readings[one]) for one in wanted)
        return cut_halves(first, second, params)

    def pair_template(self, params: PoolingParams) -> PairTemplate:
        """Return what is put around and between the two texts of a pair."""
        template = self._tokenizer.pair_template
        return template if params.add_special_tokens else template.without_special_tokens()

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        return self._tokenizer.tokens(token_ids)

    def text_tokens(self, text: str, params: PoolingParams) -> list[TextToken]:
        """Return the tokens of a text that `encode` gives the ids of, with their characters in the text."""
        params = self._auto_truncated(params)
        prompt = find_prompt(self._info, params)
        tokens = self._tokenizer.text_tokens(text, prompt=prompt)
        before, after = self._affixes(params)
        lead = sum(1 for _ in takewhile(lambda token: token.is_special, tokens)) if prompt else 0
        room, longest = self._room(params, special_tokens=len(before) + len(after)), limit_of(params, params.input_type)
        kept = keep(range(len(tokens)), lead=lead, room=room, longest=longest, drops=params.truncation_side)
        specials = [
            [TextToken(name, None, None, is_special=True) for name in self.tokens(ids)] for ids in (before, after)
        ]
        return [*specials[0], *(tokens[place] for place in kept), *specials[1]]

    def shorten(self, text: str, *, tokens: int) -> str:
        """Return the start of a text that has so many tokens, or all of it where it has no more."""
        spans = self._reader.find_spans(text, tokens + 1)
        if spans is not None:
            # A character whose bytes are several tokens stays whole.
            return text if len(spans) <= tokens else text[: min(spans[tokens - 1][1], spans[tokens][0])]
        found = self._tokenizer.text_tokens(text)
        return text if len(found) <= tokens else self._tokenizer.join([token.token for token in found[:tokens]])

    def join(self, tokens: Sequence[str]) -> str:
        """Return what tokens, as the vocabulary writes them, read together."""
        return self._tokenizer.join(tokens)

    def _auto_truncated(self, params: PoolingParams) -> PoolingParams:
        """Let a prompt be cut to the model's maximum where the operator wants that and its params say nothing."""
        if params.truncate_prompt_tokens is None and self._info.config.auto_truncate:
            return replace(params, truncate_prompt_tokens=-1)
        return params

    def _as_query(self, prompt: Prompt, params: PoolingParams) -> Prompt | RequestError:
        """Put around a text what a model that searches images reads around every query; leave other prompts."""
        if self._query_frame is None or not isinstance(prompt, str):
            return prompt
        if params.input_type == "document":
            return RequestError(
                f"{self._info.name} searches images: it reads texts as queries alone. Send documents as images.",
                param="documents",
            )
        before, after = self._query_frame
        try:
            return TemplatedText(before + find_prompt(self._info, params), prompt, after)
        except RequestError as error:
            return error

    def _limit_of_framed(self, params: PoolingParams) -> int | None:
        """Return how many tokens the text in a frame may have by itself."""
        return limit_of(params, "document" if self._query_frame is None else "query")

    def _wanted_or_error(
        self, prompt: Prompt | RequestError, params: PoolingParams
    ) -> tuple[Wanted, ...] | RequestError:
        if isinstance(prompt, RequestError):
            return prompt
        try:
            return self._wanted(prompt, params)
        except RequestError as error:
            return error

    def _wanted(self, prompt: Prompt, params: PoolingParams) -> tuple[Wanted, ...]:
        """Return which texts have to be tokenized for a prompt, and how much of each."""
        match prompt:
            case str():
                lead, specials = find_prompt(self._info, params), sum(map(len, self._affixes(params)))
                longest = limit_of(params, params.input_type)
                of_text = None if longest is None else len(self._prompt_ids.get(lead, ())) + longest
                count = least(of_text, self._room(params, special_tokens=specials))
                return (Wanted(lead + prompt, count, params.truncation_side),)
            case TextPair():
                return wanted_halves(
                    prompt, params, room=self._room(params, special_tokens=self.pair_template(params).size)
                )
            case TemplatedText():
                count = least(self._limit_of_framed(params), self._room(params, special_tokens=0))
                is_cut = count is not None and is_long(prompt.text, count)
                return () if is_cut else (Wanted(prompt.prefix + prompt.text + prompt.suffix),)
        return ()

    def _encode_one(
        self, prompt: Prompt, params: PoolingParams, readings: Sequence[Reading], index: int
    ) -> EncodedPrompt:
        types: Sequence[int] | None = None
        prompt_length = 0
        match prompt:
            case str():
                ids, prompt_length = self._text(prompt, params, *readings)
            case TextPair():
                ids, types = self._pair(prompt, params, *readings)
            case TemplatedText():
                ids = self._framed(prompt, params, readings, index)
            case ImagePrompt():
                return self._image(prompt, params, index)
            case _:
                ids, types, prompt_length = _read_tokens(prompt)
                self._check_range(ids, index)
                room = self._room(params, special_tokens=0)
                ids = cut(ids, room, params.truncation_side)
                types = types and cut(types, room, params.truncation_side)
        if not ids:
            raise RequestError(
                f"Prompt {index} is empty: it has no tokens, and this model's tokenizer adds none. Send some text.",
                param="input",
            )
        if prompt_length >= len(ids):
            raise RequestError(
                f"Prompt {index} has {len(ids)} tokens, all of them the prompt's that {self._info.name} puts before a "
                "text and leaves out of pooling. Send a text, and allow more than so many tokens.",
                param="input",
            )
        is_query = (params.input_type or self._info.text.default_input_type) == "query"
        return EncodedPrompt(ids, params, types, is_query=is_query, prompt_length=prompt_length)

    def _text(self, text: str, params: PoolingParams, reading: Reading) -> tuple[Sequence[int], int]:
        """Return the ids of a text behind its prompt, and how many of them are left out of pooling."""
        before, after = self._affixes(params)
        prompt = find_prompt(self._info, params)
        prompt_ids = self._prompt_ids.get(prompt, [])
        ids, drops = reading.token_ids, params.truncation_side
        if prompt_ids and drops == "left" and not reading.is_whole:
            [head] = map(shown, self._reader.read([Wanted(prompt + text, len(prompt_ids))]).values())
            ids = [*head.token_ids[: shared(prompt_ids, head.token_ids)], *ids]
        room = self._room(params, special_tokens=len(before) + len(after))
        kept = keep(
            ids,
            lead=shared(prompt_ids, ids),
            room=room,
            longest=limit_of(params, params.input_type),
            drops=drops,
        )
        # The count of sentence-transformers: the prompt between special tokens, but for the last of these.
        around = len(before) + max(0, len(after) - 1)
        prompt_length = 0 if self._info.pooling.includes_prompt or not prompt_ids else len(prompt_ids) + around
        return [*before, *kept, *after], prompt_length

    def _pair(
        self, pair: TextPair, params: PoolingParams, first: Reading, second: Reading
    ) -> tuple[Sequence[int], Sequence[int] | None]:
        """Return the ids and types of a pair, its texts cut as `params` ask and the special tokens kept."""
        template = self.pair_template(params)
        room = self._room(params, special_tokens=template.size)
        halves = cut_halves(first, second, params)
        if room is not None:
            if not (first.is_whole and second.is_whole) and min(map(len, halves)) > room:
                halves = self.halves(pair, params)  # which of the two is longer has a say in how both are cut
            longest = cut_pair(len(halves[0]), len(halves[1]), room)
            halves = (
                cut(halves[0], longest[0], params.truncation_side),
                cut(halves[1], longest[1], params.truncation_side),
            )
        return template.join(*halves)

    def _framed(
        self, framed: TemplatedText, params: PoolingParams, readings: Sequence[Reading], index: int
    ) -> Sequence[int]:
        room, longest = self._room(params, special_tokens=0), self._limit_of_framed(params)
        most = least(room, longest)
        if readings and (most is None or len(readings[0].token_ids) <= most):
            return readings[0].token_ids
        try:
            return cut_frame(framed, self._tokenizer, room=room, longest=longest, drops=params.truncation_side)
        except RequestError as error:
            raise RequestError(f"Prompt {index}: {error}.", param="input") from error

    def _image(self, image: ImagePrompt, params: PoolingParams, index: int) -> EncodedPrompt:
        if self._images is None:
            raise RequestError(
                f"Prompt {index} is an image; {self._info.name} reads texts alone. Send texts, or serve a model of "
                "images and texts.",
                param="input",
            )
        try:
            token_ids, seen = self._images.read(image)
        except RequestError as error:
            raise RequestError(f"Prompt {index}: {error}.", param="input") from error
        return EncodedPrompt(token_ids, params, image=seen)

    def _affixes(self, params: PoolingParams) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._special_ids if params.add_special_tokens else ((), ())

    def _check_length(self, prompt: EncodedPrompt, index: int) -> None:
        longest = self._info.longest(prompt.params.input_type)
        if len(prompt.token_ids) > longest:
            raise RequestError(
                f"Prompt {index} has {len(prompt.token_ids)} tokens; {self._info.name} takes at most {longest}. "
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

    def _room(self, params: PoolingParams, *, special_tokens: int) -> int | None:
        """Return how many tokens a prompt may keep beside its special tokens, or None where it must not be cut."""
        limit, longest = params.truncate_prompt_tokens, self._info.longest(params.input_type)
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
        return limit - special_tokens


def _special_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    [ids] = tokenizer.encode_batch([PROBE], add_special_tokens=True)
    before, after = tokenizer.special_affixes
    return tuple(ids[:before]), tuple(ids[len(ids) - after :])


def _read_tokens(prompt: TokenInputs | Sequence[int]) -> tuple[Sequence[int], Sequence[int] | None, int]:
    if isinstance(prompt, TokenInputs):
        return prompt.token_ids, prompt.token_type_ids, prompt.prompt_length
    return prompt, None, 0
