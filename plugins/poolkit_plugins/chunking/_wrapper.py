"""Runs the chunks in place of the prompts, and gives the processor one output for each prompt that it prepared."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from poolkit import (
    Activation,
    ImagePrompt,
    Output,
    PooledOutput,
    PoolingParams,
    Prepared,
    Prompt,
    TemplatedText,
    TextPair,
    TokenInputs,
    hookimpl,
)
from poolkit.errors import RequestError
from poolkit_plugins._prompts import as_prompt, params_of_ids
from poolkit_plugins.chunking._cutting import Cutter

if TYPE_CHECKING:
    from pydantic import BaseModel

    from poolkit import BindContext
    from poolkit.contract import EncodedPrompt
    from poolkit_plugins.chunking import Settings

__all__ = ["Chunking"]

SMALLEST_NORM = 1e-12
"""What torch's `normalize` divides a shorter vector by."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A request that runs in chunks.

    Attributes:
        whole: as it was prepared.
        chunks: how many there are of each prompt.
    """

    whole: Prepared
    chunks: tuple[int, ...]


class Chunking:
    """Surrounds one operation whose outputs are vectors, scores or the vectors of tokens."""

    def __init__(self, context: BindContext, settings: Settings) -> None:
        self._context = context
        self._cutter = Cutter.of(context, settings)
        self._combine = settings.combine

    @hookimpl(wrapper=True)
    def pre_process(self) -> Generator[None, Prepared, Prepared]:
        """Prepare the chunks in place of the prompts."""
        whole = yield
        if any(isinstance(prompt, ImagePrompt) for prompt in whole.prompts):
            return whole  # nobody cuts an image, and to be here each would have to be decoded
        encoded = self._context.encoder.encode(whole.prompts, whole.params_of_each, first_index=0, refuses_long=False)
        chunks: list[list[tuple[Prompt, PoolingParams]]] = []
        refused: list[RequestError] = []
        for index, (prompt, one) in enumerate(zip(whole.prompts, encoded, strict=True)):
            if isinstance(one, RequestError):
                refused.append(one)
            else:
                self._check_length(one, index)
                chunks.append(self._cut(prompt, one))
        is_cut = any(len(some) > 1 for some in chunks)
        if refused and is_cut:
            raise refused[0]
        if refused:
            return whole  # it runs as it is: each refusal is told by the prompt's index, and the others run
        return Prepared(
            [prompt for some in chunks for prompt, _ in some],
            [params for some in chunks for _, params in some],
            _Cut(whole, tuple(map(len, chunks))),
            outputs_map_to_inputs=not is_cut and whole.outputs_map_to_inputs,
        )

    @hookimpl(wrapper=True)
    def post_process(
        self, prepared: Prepared, outputs: Sequence[PooledOutput]
    ) -> Generator[tuple[Prepared, Sequence[PooledOutput]] | None, BaseModel, BaseModel]:
        """Put the outputs of each prompt's chunks together."""
        if not isinstance(prepared.state, _Cut):
            return (yield None)
        return (yield prepared.state.whole, list(self._join(prepared.state, outputs)))

    def _check_length(self, encoded: EncodedPrompt, index: int) -> None:
        longest, length = self._context.model.config.pooler_config.max_embed_len, len(encoded.token_ids)
        if longest is not None and length > longest:
            raise RequestError(
                f"Prompt {index} has {length} tokens; in chunks {self._context.model.name} is given at most {longest} "
                "(pooler_config.max_embed_len). Shorten it, or set truncate_prompt_tokens=-1 to have it cut to the "
                "model's maximum.",
                param="input",
            )

    def _cut(self, prompt: Prompt, encoded: EncodedPrompt) -> list[tuple[Prompt, PoolingParams]]:
        """Return the chunks of a prompt, each with its params."""
        params = encoded.params
        pieces: Sequence[Prompt]
        fits = len(encoded.token_ids) <= self._cutter.longest
        # Neither token ids with types nor those of a text in its frame tell where what may be cut begins.
        if fits or params.truncate_prompt_tokens is not None or isinstance(prompt, TokenInputs | TemplatedText):
            pieces = [as_prompt(encoded.token_ids, encoded.token_type_ids, prompt_length=encoded.prompt_length)]
        elif isinstance(prompt, TextPair):
            encoder = self._context.encoder
            pieces = self._cutter.cut_pair(*encoder.halves(prompt, params), encoder.pair_template(params))
        else:
            first, *rest = self._cutter.cut(encoded.token_ids)
            pieces = [as_prompt(first, prompt_length=encoded.prompt_length), *rest]
        if len(pieces) > 1 and self._normalizes(params):
            params = replace(params, use_activation=False)  # the average is normalised, and not what goes into it
        if len(pieces) > 1:
            # Scores of chunks do not add up to the document's: its token vectors are put end to end and scored then.
            params = replace(params, late_interaction=None)
        return [(piece, params_of_ids(params)) for piece in pieces]

    def _normalizes(self, params: PoolingParams) -> bool:
        """Return whether a vector is to have length 1, by the request's wish, the operator's, or the default."""
        task = self._context.task
        wishes = (params.use_activation, self._context.model.config.pooler_config.use_activation, True)
        is_wanted = next(wish for wish in wishes if wish is not None)
        return is_wanted and task.output is Output.VECTOR and task.activation is Activation.NORMALIZE

    def _join(self, cut: _Cut, outputs: Sequence[PooledOutput]) -> Iterator[PooledOutput]:
        rest = iter(outputs)
        for index, (params, count) in enumerate(zip(cut.whole.params_of_each, cut.chunks, strict=True)):
            chunks = list(islice(rest, count))
            if count > 1 and chunks[0].parts:
                raise RequestError(
                    f"Prompt {index} is longer than {self._cutter.longest} tokens, and of what task "
                    f"{self._context.task.name!r} gives for its chunks, {', '.join(chunks[0].parts)} cannot be put "
                    "together. Shorten it, or set truncate_prompt_tokens=-1 to have it cut.",
                    param="input",
                )
            yield chunks[0] if count == 1 else self._combine_chunks(chunks, params)

    def _combine_chunks(self, chunks: Sequence[PooledOutput], params: PoolingParams) -> PooledOutput:
        token_ids = list(chain.from_iterable(chunk.prompt_token_ids for chunk in chunks))
        if self._context.task.output is Output.TOKEN_VECTORS:
            return PooledOutput(np.concatenate([chunk.data for chunk in chunks]), token_ids)
        rows = np.stack([chunk.data for chunk in chunks])  # (chunks, dim)
        if self._context.task.output is Output.VECTOR:
            row = np.average(rows, axis=0, weights=[len(chunk.prompt_token_ids) for chunk in chunks])
            if self._normalizes(params):
                row = row / max(float(np.linalg.norm(row)), SMALLEST_NORM)
        else:
            row = rows.max(axis=0) if self._combine == "best" else rows.mean(axis=0)
        return PooledOutput(row.astype(np.float32), token_ids)
