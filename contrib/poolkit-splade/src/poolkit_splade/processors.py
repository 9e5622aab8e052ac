"""Turns the texts of a request into prompts, and weights into an answer in the format that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from poolkit import BindContext, PooledOutput, PoolingIOProcessor, PoolingParams, Prepared, Usage
from poolkit_splade.files import splade_files
from poolkit_splade.schema import (
    IndexedWeights,
    Settings,
    SparseEmbeddingsRequest,
    SparseEmbeddingsResponse,
    SparseFormat,
)

__all__ = ["SparseEmbeddingsProcessor"]


class SparseEmbeddingsProcessor(PoolingIOProcessor[SparseEmbeddingsRequest, SparseEmbeddingsResponse]):
    """Keeps the weights that were asked for: the request's own wishes, the operator's, the model's."""

    def __init__(self, context: BindContext) -> None:
        super().__init__(context)
        assert isinstance(context.settings, Settings)
        self._threshold = context.settings.threshold
        self._top_k = context.settings.top_k or splade_files(context.model).max_active_dims

    def pre_process(self, request: SparseEmbeddingsRequest) -> Prepared:
        """Return the texts."""
        params = PoolingParams(truncate_prompt_tokens=request.truncate_prompt_tokens)
        return Prepared(request.texts, params, state=request)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> SparseEmbeddingsResponse:
        """Return the weights of each text."""
        request = cast("SparseEmbeddingsRequest", prepared.state)
        kept = [self._keep(output, request) for output in outputs]
        usage = Usage.of(outputs)
        if request.format is SparseFormat.INDICES:
            pairs = [sorted(weights) for weights in kept]
            indexed = [IndexedWeights(indices=[i for i, _ in one], values=[value for _, value in one]) for one in pairs]
            return SparseEmbeddingsResponse(embeddings=indexed, usage=usage)
        return SparseEmbeddingsResponse(embeddings=[self._by_token(weights) for weights in kept], usage=usage)

    def _keep(self, output: PooledOutput, request: SparseEmbeddingsRequest) -> list[tuple[int, float]]:
        """Return the token ids to keep with their weights, the highest first."""
        threshold = self._threshold if request.threshold is None else request.threshold
        top_k = self._top_k if request.top_k is None else request.top_k
        token_ids, weights = output.indices, output.data
        assert token_ids is not None
        order = np.argsort(-weights, kind="stable")[:top_k]
        highest = zip(token_ids[order].tolist(), weights[order].tolist(), strict=True)
        return [(token_id, weight) for token_id, weight in highest if weight > threshold]

    def _by_token(self, weights: Sequence[tuple[int, float]]) -> dict[str, float]:
        tokens = self.context.encoder.tokens([token_id for token_id, _ in weights])
        return {token: weight for token, (_, weight) in zip(tokens, weights, strict=True)}
