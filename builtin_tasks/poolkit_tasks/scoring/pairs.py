"""Reads which query goes with which document out of a request, and keeps the rule of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from poolkit import ModalityPrompt, PoolingParams, RerankRequest, ScoreRequest
from poolkit.errors import RequestError

__all__ = ["Pair", "ScoringRequest", "read_pairs"]

ScoringRequest: TypeAlias = ScoreRequest | RerankRequest


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a document to score, and how both are read."""

    query: str | ModalityPrompt
    document: str | ModalityPrompt
    params: PoolingParams


def read_pairs(request: ScoringRequest) -> list[Pair]:
    """Return the pairs of a request, in the order of its documents.

    Raises RequestError where the numbers of queries and documents are neither 1:1, 1:N nor N:N, and ValueError where
    there are parameters for another number of pairs.
    """
    queries: Sequence[str | ModalityPrompt] = [request.query] if isinstance(request, RerankRequest) else request.queries
    documents = request.documents
    if len(queries) not in (1, len(documents)):
        raise RequestError(
            f"Input lengths must be either 1:1, 1:N or N:N; there are {len(queries)} queries and {len(documents)} "
            "documents.",
            param="queries",
        )
    if len(queries) == 1:
        queries = [queries[0]] * len(documents)
    params = request.params(prompts=len(documents))
    of_each = [params] * len(documents) if isinstance(params, PoolingParams) else params
    return [Pair(*each) for each in zip(queries, documents, of_each, strict=True)]
