"""The base of every scorer: pairs in, scores out, and for `rerank` the documents sorted by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from poolkit import (
    PooledOutput,
    PoolingIOProcessor,
    Prepared,
    RerankRequest,
    RerankResponse,
    RerankResult,
    ScoreResponse,
    TokenIds,
    Usage,
)
from poolkit.errors import RequestError
from poolkit_tasks.scoring.pairs import Pairs, ScoringRequest, read_pairs

__all__ = ["Scored", "ScoringIOProcessor"]

ScoringResponse: TypeAlias = ScoreResponse | RerankResponse


@dataclass(frozen=True, slots=True)
class Scored:
    """The results of a request's pairs.

    Attributes:
        scores: higher is more relevant. (pairs,), float32
        prompt_token_ids: the tokens that ran through the model for each pair.
    """

    scores: NDArray[np.float32]
    prompt_token_ids: Sequence[TokenIds]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and what its prompts were prepared from."""

    request: ScoringRequest
    prepared: Prepared


class ScoringIOProcessor(PoolingIOProcessor[ScoringRequest, ScoringResponse]):
    """Serves `score` and `rerank`, each by an instance of its own. A scorer says how, in `prepare` and `score`."""

    def prepare(self, pairs: Pairs, request: ScoringRequest) -> Prepared:
        """Return the prompts of some pairs."""
        raise NotImplementedError

    def score(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> Scored:
        """Return the scores of the pairs that `prepare` was given, from the outputs of its prompts."""
        raise NotImplementedError

    def pre_process(self, request: ScoringRequest) -> Prepared:
        """Return the prompts of a request's pairs."""
        prepared = self.prepare(read_pairs(request), request)
        return replace(prepared, state=_Asked(request, prepared))

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> ScoringResponse:
        """Return the score of each pair, or the documents in the order of their scores."""
        asked = cast("_Asked", prepared.state)
        scored = self.score(asked.prepared, outputs)
        usage = Usage.of(outputs)
        if isinstance(asked.request, RerankRequest):
            return RerankResponse(results=_sort(scored.scores, asked.request), usage=usage)
        return ScoreResponse(scores=scored.scores, prompt_token_ids=scored.prompt_token_ids, usage=usage)

    def refuse_instruction(self, request: ScoringRequest) -> None:
        """Raise RequestError where a request has an instruction, which no template of the model has a place for."""
        if request.instruction is not None:
            raise RequestError(
                f"{self.context.model.name} reads queries and documents without a template that has a place for an "
                "instruction. Leave it out.",
                param="instruction",
            )


def _sort(scores: NDArray[np.float32], request: RerankRequest) -> list[RerankResult]:
    """Return the best documents, most relevant first and equals by index."""
    order = np.argsort(-scores, kind="stable")[: request.top_n or None]
    documents = request.documents
    return [
        RerankResult(
            index=index,
            relevance_score=score,
            document=document if isinstance(document := documents[index], str) else None,
        )
        for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
    ]
