"""The IO processor of `embed`: prompts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolkit import EmbeddingsRequest, EmbeddingsResponse, PooledOutput, PoolingIOProcessor, Prepared, Usage

__all__ = ["EmbeddingsProcessor"]


class EmbeddingsProcessor(PoolingIOProcessor[EmbeddingsRequest, EmbeddingsResponse]):
    """Embed each prompt."""

    never_blocks = True

    def pre_process(self, request: EmbeddingsRequest) -> Prepared:
        """Return the request's prompts."""
        prompts = request.prompts()
        return Prepared(prompts, request.params(prompts=len(prompts)))

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> EmbeddingsResponse:  # noqa: ARG002
        """Return the vectors as the rows of one array, shape (prompts, dim)."""
        rows = [output.data for output in outputs]
        return EmbeddingsResponse(
            embeddings=np.stack(rows) if rows else np.empty((0, self.context.model.embedding_size), np.float32),
            prompt_token_ids=[output.prompt_token_ids for output in outputs],
            usage=Usage.of(outputs),
        )
