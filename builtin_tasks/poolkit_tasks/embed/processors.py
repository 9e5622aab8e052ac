"""The IO processors of `embed`: prompts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolkit import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    ModelInfo,
    PooledOutput,
    PoolingIOProcessor,
    PoolingProcessor,
    PoolingRequest,
    Prepared,
    Usage,
)
from poolkit.errors import RequestError

__all__ = ["EmbedPoolingProcessor", "EmbeddingsProcessor"]


class EmbeddingsProcessor(PoolingIOProcessor[EmbeddingsRequest, EmbeddingsResponse]):
    """Embed each prompt."""

    def pre_process(self, request: EmbeddingsRequest) -> Prepared:
        """Return the request's prompts; refuse a length of vector that the model does not offer."""
        check_dimensions(request.dimensions, self.context.model)
        return Prepared(request.prompts(), request.params())

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> EmbeddingsResponse:  # noqa: ARG002
        """Return the vectors as the rows of one array, shape (prompts, dim)."""
        rows = [output.data for output in outputs]
        return EmbeddingsResponse(
            embeddings=np.stack(rows) if rows else np.empty((0, self.context.model.embedding_size), np.float32),
            prompt_token_ids=[list(output.prompt_token_ids) for output in outputs],
            usage=Usage.of(outputs),
        )


class EmbedPoolingProcessor(PoolingProcessor):
    """Return each prompt's vector."""

    def pre_process(self, request: PoolingRequest) -> Prepared:
        """Return the request's prompts; refuse a length of vector that the model does not offer."""
        check_dimensions(request.dimensions, self.context.model)
        return super().pre_process(request)


def check_dimensions(dimensions: int | None, model: ModelInfo) -> None:
    """Raise RequestError unless the model can shorten its vectors to `dimensions`."""
    if dimensions is None or dimensions == model.embedding_size:
        return
    if model.matryoshka_dimensions is None:
        raise RequestError(
            f"{model.name} is not a Matryoshka model: its vectors have {model.embedding_size} dimensions. "
            "Leave out dimensions.",
            param="dimensions",
        )
    if model.matryoshka_dimensions and dimensions not in model.matryoshka_dimensions:
        allowed = ", ".join(str(number) for number in model.matryoshka_dimensions)
        raise RequestError(f"dimensions is {dimensions}; {model.name} offers {allowed}.", param="dimensions")
    if dimensions > model.embedding_size:
        raise RequestError(
            f"dimensions is {dimensions}; {model.name} offers 1 to {model.embedding_size}.", param="dimensions"
        )
