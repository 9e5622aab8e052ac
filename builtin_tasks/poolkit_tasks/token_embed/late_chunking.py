"""Late chunking: one vector for each part of a text, its tokens having read the whole text.

(Günther et al. 2024, https://arxiv.org/abs/2409.04701: the token vectors of one long pass are pooled by character
ranges, instead of each part being embedded by itself.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from poolkit import PooledOutput, PoolingIOProcessor, PoolingParams, Prepared, Usage
from poolkit.errors import RequestError
from poolkit_tasks.token_embed.schema import LateChunkingRequest, LateChunkingResponse

__all__ = ["LateChunkingProcessor"]

SMALLEST_NORM = 1e-12
"""The least length that torch's `normalize` divides by."""


class LateChunkingProcessor(PoolingIOProcessor[LateChunkingRequest, LateChunkingResponse]):
    """Averages the vectors of the tokens that lie in a chunk, then normalises."""

    never_blocks = True

    def pre_process(self, request: LateChunkingRequest) -> Prepared:
        """Return the whole text as the only prompt."""
        for index, (start, end) in enumerate(request.chunks):
            if not 0 <= start < end <= len(request.text):
                raise RequestError(
                    f"chunks[{index}] is {start} to {end}; the text has characters 0 to {len(request.text)}.",
                    param=f"chunks[{index}]",
                )
        params = request.params(prompts=1)
        own = params if isinstance(params, PoolingParams) else params[0]
        return Prepared([request.text], replace(own, use_activation=False), (request, own), with_text_tokens=True)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> LateChunkingResponse:
        """Return the vector of each chunk."""
        request, params = cast("tuple[LateChunkingRequest, PoolingParams]", prepared.state)
        tokens = outputs[0].text_tokens
        if len(tokens) != len(outputs[0].data):
            raise RequestError(
                f"{self.context.model.name} answered {len(outputs[0].data)} vectors for the {len(tokens)} tokens of "
                "the text: late chunking needs one for each, from one pass. Shorten the text where it runs in chunks; "
                "a model that leaves out tokens cannot do it.",
                param="text",
            )
        starts = np.array([-1 if token.start is None or token.is_special else token.start for token in tokens])
        ends = np.array([-1 if token.end is None or token.is_special else token.end for token in tokens])
        rows = [
            self._average(outputs[0].data[(starts < end) & (ends > start)], index)
            for index, (start, end) in enumerate(request.chunks)
        ]
        vectors = np.stack(rows) if rows else np.empty((0, self.context.model.token_vector_size), np.float32)
        if self.context.encoder.resolve(params).activates:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SMALLEST_NORM)
        return LateChunkingResponse(embeddings=vectors, usage=Usage.of(outputs))

    def _average(self, rows: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        if not len(rows):
            raise RequestError(
                f"No token of the text lies in chunks[{index}], as {self.context.model.name} reads it. Leave that "
                "chunk out, or join it to another.",
                param=f"chunks[{index}]",
            )
        averaged: NDArray[np.float32] = rows.mean(axis=0)
        return averaged
