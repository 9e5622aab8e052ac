"""Answers the standard requests `rerank` and `score` by reading documents together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from poolkit import (
    BindContext,
    ModalityPrompt,
    PooledOutput,
    PoolingIOProcessor,
    PoolingParams,
    Prepared,
    RerankRequest,
    RerankResponse,
    RerankResult,
    ScoreRequest,
    ScoreResponse,
    Usage,
    require_text,
)
from poolkit.errors import RequestError
from poolkit_jina_reranker_v3.listing import Lister, Listing
from poolkit_jina_reranker_v3.scores import score

__all__ = ["RerankProcessor", "ScoreProcessor"]

RequestT = TypeVar("RequestT", RerankRequest, ScoreRequest)
ResponseT = TypeVar("ResponseT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked(Generic[RequestT]):
    """A request, and the listing of each of its queries."""

    request: RequestT
    listings: tuple[Listing, ...]


class ListwiseProcessor(PoolingIOProcessor[RequestT, ResponseT]):
    """The base of both operations: queries with their documents become prompts; their vectors, scores."""

    def __init__(self, context: BindContext) -> None:
        super().__init__(context)
        self._lister = Lister(context)

    def _prepare(self, request: RequestT, asked: Sequence[tuple[str, Sequence[str]]]) -> Prepared:
        """Return the prompts for queries and their documents."""
        wishes = _wishes(request)
        listings = tuple(
            self._lister.list_documents(query, documents, instruction=request.instruction, wishes=wishes)
            for query, documents in asked
        )
        return Prepared(
            [prompt for listing in listings for prompt in listing.prompts],
            replace(wishes, truncate_prompt_tokens=None),
            state=Asked(request, listings),
            outputs_map_to_inputs=False,  # one listing is of no use without the others
        )


class RerankProcessor(ListwiseProcessor[RerankRequest, RerankResponse]):
    """Sorts documents by how well they answer a query."""

    def pre_process(self, request: RerankRequest) -> Prepared:
        """Return a prompt for each block of documents."""
        return self._prepare(request, [(require_text(request.query), _texts(request.documents))])

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> RerankResponse:
        """Return the documents, best first and equals by index."""
        asked = cast("Asked[RerankRequest]", prepared.state)
        [scores] = _scores(asked.listings, outputs)
        order = np.argsort(-scores, kind="stable")[: asked.request.top_n or None].tolist()
        documents = _texts(asked.request.documents)
        results = [
            RerankResult(index=index, relevance_score=float(scores[index]), document=documents[index])
            for index in order
        ]
        return RerankResponse(results=results, usage=Usage.of(outputs))


class ScoreProcessor(ListwiseProcessor[ScoreRequest, ScoreResponse]):
    """Scores documents in their own order: those of one query together, those of several queries each alone."""

    def pre_process(self, request: ScoreRequest) -> Prepared:
        """Return a prompt for each block of documents, or for each pair."""
        queries, documents = _texts(request.queries), _texts(request.documents)
        if len(queries) == 1:
            return self._prepare(request, [(queries[0], documents)])
        if len(queries) == len(documents):
            pairs = zip(queries, documents, strict=True)
            return self._prepare(request, [(query, [document]) for query, document in pairs])
        raise RequestError(
            f"Input lengths must be either 1:1, 1:N or N:N; there are {len(queries)} queries and {len(documents)} "
            "documents.",
            param="queries",
        )

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> ScoreResponse:
        """Return a score for each pair."""
        asked = cast("Asked[ScoreRequest]", prepared.state)
        sizes = [size for listing in asked.listings for size in listing.sizes]
        return ScoreResponse(
            scores=np.concatenate([np.empty(0, np.float32), *_scores(asked.listings, outputs)]),
            prompt_token_ids=[
                output.prompt_token_ids for output, size in zip(outputs, sizes, strict=True) for _ in range(size)
            ],
            usage=Usage.of(outputs),
        )


def _texts(prompts: Sequence[str | ModalityPrompt]) -> list[str]:
    return [require_text(prompt) for prompt in prompts]


def _wishes(request: RerankRequest | ScoreRequest) -> PoolingParams:
    """Return what the request says of how texts are read: the same for all of its prompts, which the caller never sees.

    Raises RequestError where it wants the prompts themselves cut.
    """
    params = request.params(prompts=1)
    wishes = params if isinstance(params, PoolingParams) else params[0]
    if wishes.truncate_prompt_tokens not in (None, -1):
        raise RequestError(
            f"truncate_prompt_tokens is {wishes.truncate_prompt_tokens}, but a prompt here holds a query and many "
            "documents, each cut by itself. Set max_tokens_per_query and max_tokens_per_doc instead.",
            param="truncate_prompt_tokens",
        )
    return wishes


def _scores(listings: Sequence[Listing], outputs: Sequence[PooledOutput]) -> list[NDArray[np.float32]]:
    """Return the scores of each listing's documents."""
    remaining = iter(outputs)
    return [
        score([next(remaining).data for _ in listing.prompts]) if listing.prompts else np.empty(0, np.float32)
        for listing in listings
    ]
