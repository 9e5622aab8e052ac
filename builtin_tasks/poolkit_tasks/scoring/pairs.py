"""Reads which query goes with which document out of a request, and keeps the rule of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from poolkit import ModalityPrompt, PoolingParams, RerankRequest, ScoreRequest, require_text
from poolkit.errors import RequestError

__all__ = ["Pairs", "ScoringRequest", "Text", "change_params", "read_pairs", "require_texts"]

ScoringRequest: TypeAlias = ScoreRequest | RerankRequest

Text: TypeAlias = str | ModalityPrompt
"""A text, or what stands in its place."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Queries and documents to score, and how both are read.

    Attributes:
        queries: of each pair.
        documents: of each pair.
        params: of each pair. Those of many pairs are mostly one object.
    """

    queries: Sequence[Text]
    documents: Sequence[Text]
    params: Sequence[PoolingParams]


def read_pairs(request: ScoringRequest) -> Pairs:
    """Return the pairs of a request, in the order of its documents.

    Raises RequestError where the numbers of queries and documents are neither 1:1, 1:N nor N:N, or there are
    parameters for another number of pairs.
    """
    queries: Sequence[Text] = [request.query] if isinstance(request, RerankRequest) else request.queries
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
    return Pairs(queries, documents, [params] * len(documents) if isinstance(params, PoolingParams) else params)


def require_texts(prompts: Sequence[Text]) -> list[str]:
    """Return prompts that are all texts. Raises RequestError where one is not."""
    return [prompt if isinstance(prompt, str) else require_text(prompt) for prompt in prompts]


def change_params(
    params: Sequence[PoolingParams], change: Callable[[PoolingParams], PoolingParams]
) -> list[PoolingParams]:
    """Return changed parameters. Each different one is changed once, and equal ones are one object afterwards."""
    changed: dict[int, PoolingParams] = {}
    distinct: dict[PoolingParams, PoolingParams] = {}
    for number, one in {id(one): one for one in params}.items():
        made = change(one)
        changed[number] = distinct.setdefault(made, made)
    return [changed[id(one)] for one in params]
