"""Runs the chunks of long prompts in their place, and puts the chunks' outputs together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from poolkit import Activation, EncodedPrompt, Outcome, Output, PooledOutput
from poolkit.errors import RequestError

if TYPE_CHECKING:
    from poolkit import BindContext, TokenIds
    from poolkit_plugins.chunking import Settings

__all__ = ["Chunking"]

SMALLEST_NORM = 1e-12
"""The least length that torch's `normalize` divides by."""


class Chunking:
    """Surrounds the model in one operation whose outputs are vectors, scores or the vectors of tokens.

    Raises ValueError where the model does not take such chunks, or they would not advance.
    """

    takes_long_prompts = True

    def __init__(self, context: BindContext, settings: Settings) -> None:
        model, overlap = context.model, settings.overlap_tokens
        self._context = context
        self._longest = longest = settings.max_chunk_tokens or model.max_model_len
        self._overlap = overlap
        self._combine = settings.combine
        special = sum(map(len, context.encoder.special_ids()))
        if longest > model.max_model_len:
            raise ValueError(f"max_chunk_tokens is {longest}; {model.name} takes at most {model.max_model_len}")
        if special + overlap >= longest:
            raise ValueError(
                f"{special} special tokens and overlap_tokens = {overlap} leave nothing of a chunk of {longest} tokens"
            )

    def run(
        self, encoded: Sequence[EncodedPrompt]
    ) -> Generator[Sequence[EncodedPrompt], Sequence[Outcome], Sequence[Outcome]]:
        """Yield the chunks of each prompt; return one outcome per prompt.

        Prompts of a group are left as they are: with chunks in their place, a head would see another group.
        """
        chunks_of = [
            [prompt] if prompt.group is not None else self._refusal(prompt) or self._cut(prompt) for prompt in encoded
        ]
        counts = [0 if isinstance(chunks, RequestError) else len(chunks) for chunks in chunks_of]
        outcomes = iter((yield [chunk for chunks in chunks_of if isinstance(chunks, list) for chunk in chunks]))
        return [
            chunks if isinstance(chunks, RequestError) else self._join(prompt, list(islice(outcomes, count)))
            for prompt, chunks, count in zip(encoded, chunks_of, counts, strict=True)
        ]

    def _refusal(self, prompt: EncodedPrompt) -> RequestError | None:
        """Return why a prompt is too long even for chunks, or leaves no room for any; None if it can run."""
        model, length = self._context.model, len(prompt.token_ids)
        limit = model.config.pooler_config.max_embed_len
        if limit is not None and length > limit:
            return RequestError(
                f"Prompt {prompt.index} has {length} tokens; in chunks {model.name} is given at most {limit} "
                "(pooler_config.max_embed_len). Shorten it, or set truncate_prompt_tokens=-1 to have it cut to the "
                "model's maximum.",
                param="input",
            )
        if length > self._longest and prompt.cuttable is not None and self._room(prompt) <= self._overlap:
            start, _ = prompt.cuttable
            return RequestError(
                f"The first text of a pair has {start} tokens with the special tokens around it, which leaves "
                f"{max(self._room(prompt), 0)} of {self._longest} to each chunk of the second. Shorten it, or set "
                "truncate_prompt_tokens=-1 to have both cut.",
                param="input",
            )
        return None

    def _room(self, prompt: EncodedPrompt) -> int:
        """Return how many tokens of what may be cut fit into a chunk."""
        start, stop = prompt.cuttable or (0, 0)
        return self._longest - (len(prompt.token_ids) - (stop - start))

    def _cut(self, prompt: EncodedPrompt) -> list[EncodedPrompt]:
        """Return the chunks of a prompt, in order; one that fits, or may not be cut, is its only chunk."""
        if len(prompt.token_ids) <= self._longest or prompt.cuttable is None or prompt.params.truncates:
            return [prompt]
        start, stop = prompt.cuttable
        room = self._room(prompt)
        begins = range(start, max(start + 1, stop - self._overlap), room - self._overlap)
        params = replace(
            prompt.params,
            # The average is normalised, and not what goes into it.
            activates=prompt.params.activates and not self._normalizes(prompt),
            # Scores of chunks do not add up to the document's: its token vectors are put end to end and scored then.
            late_interaction=None,
        )
        return [
            replace(
                prompt,
                token_ids=_splice(prompt.token_ids, start, stop, begin, room),
                token_type_ids=(
                    None if prompt.token_type_ids is None else _splice(prompt.token_type_ids, start, stop, begin, room)
                ),
                params=params,
                prompt_length=prompt.prompt_length if begin == start else 0,
                cuttable=None,
            )
            for begin in begins
        ]

    def _normalizes(self, prompt: EncodedPrompt) -> bool:
        task = self._context.task
        is_normalized = task.output is Output.VECTOR and task.activation is Activation.NORMALIZE
        return is_normalized and prompt.params.activates

    def _join(self, prompt: EncodedPrompt, chunks: Sequence[Outcome]) -> Outcome:
        """Return the outcome of a prompt: its chunks' outputs put together, or the first failure."""
        if len(chunks) == 1:
            return chunks[0]
        outputs = [chunk for chunk in chunks if isinstance(chunk, PooledOutput)]
        if len(outputs) < len(chunks):
            return next(chunk for chunk in chunks if isinstance(chunk, Exception))
        if outputs[0].parts:
            return RequestError(
                f"Prompt {prompt.index} is longer than {self._longest} tokens, and of what task "
                f"{self._context.task.name!r} gives for its chunks, {', '.join(outputs[0].parts)} cannot be put "
                "together. Shorten it, or set truncate_prompt_tokens=-1 to have it cut.",
                param="input",
            )
        join = self._context.task.output_kind.join
        assert join is not None
        joined = join(outputs, self._combine)
        if not self._normalizes(prompt):
            return joined
        return replace(joined, data=joined.data / max(float(np.linalg.norm(joined.data)), SMALLEST_NORM))


def _splice(tokens: TokenIds, start: int, stop: int, begin: int, room: int) -> TokenIds:
    """Return the tokens around `start` to `stop`, and of those between them `room` from `begin` on."""
    return np.concatenate([tokens[:start], tokens[begin : min(begin + room, stop)], tokens[stop:]])
