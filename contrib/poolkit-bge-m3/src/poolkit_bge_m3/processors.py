"""Turns the texts of a request into prompts, and the head's outputs into the embeddings that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from poolkit import PooledOutput, PoolingIOProcessor, PoolingParams, Prepared, Usage
from poolkit_bge_m3.parts import MULTI_VECTOR, TOKEN_WEIGHTS
from poolkit_bge_m3.schema import EmbeddingsM3Request, EmbeddingsM3Response, M3Embedding

__all__ = ["EmbeddingsM3Processor"]


class EmbeddingsM3Processor(PoolingIOProcessor[EmbeddingsM3Request, EmbeddingsM3Response]):
    """Returns those of the three embeddings that were asked for."""

    def pre_process(self, request: EmbeddingsM3Request) -> Prepared:
        """Return the texts, and which parts of the head's output are wanted."""
        wishes = {TOKEN_WEIGHTS: request.return_sparse, MULTI_VECTOR: request.return_multi_vector}
        params = PoolingParams(
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            parts=tuple(name for name, is_wanted in wishes.items() if is_wanted),
        )
        return Prepared(request.texts, params, state=request)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> EmbeddingsM3Response:
        """Return the embeddings of each text."""
        request = cast("EmbeddingsM3Request", prepared.state)
        data = [
            M3Embedding(
                dense=output.data if request.return_dense else None,
                sparse=_weights_by_token_id(output) if request.return_sparse else None,
                multi_vector=output.parts[MULTI_VECTOR] if request.return_multi_vector else None,
            )
            for output in outputs
        ]
        return EmbeddingsM3Response(data=data, usage=Usage.of(outputs))


def _weights_by_token_id(output: PooledOutput) -> dict[str, float]:
    """Return the weight of each token id, as FlagEmbedding writes it: ids as text."""
    token_ids, weights = output.part_indices[TOKEN_WEIGHTS], output.parts[TOKEN_WEIGHTS]
    return {str(token_id): weight for token_id, weight in zip(token_ids.tolist(), weights.tolist(), strict=True)}
