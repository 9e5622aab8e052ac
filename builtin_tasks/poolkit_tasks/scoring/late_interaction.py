"""Scores by a vector for each token: MaxSim, next to the model where the engine keeps queries, else here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from poolkit import LateInteractionParams, PooledOutput, PoolingParams, Prepared, compute_maxsim_score_batched
from poolkit_tasks.scoring.pairs import Pairs, ScoringRequest
from poolkit_tasks.scoring.processors import Scored, ScoringIOProcessor
from poolkit_tasks.scoring.sides import Sides, part

__all__ = ["LateInteractionIOProcessor"]


class LateInteractionIOProcessor(ScoringIOProcessor):
    """Sums over a query's tokens how near the nearest token of the document is.

    The sum becomes a mean where the model's files say so.
    """

    never_blocks = True

    def prepare(self, pairs: Pairs, request: ScoringRequest) -> Prepared:
        """Return the documents, then the queries."""
        self.refuse_instruction(request)
        sides = part(pairs)
        is_scored_next_to_model = self.context.model.config.pooler_config.enable_flash_late_interaction
        params = _keep_queries(sides) if is_scored_next_to_model else sides.params
        return Prepared(sides.prompts, params, sides, outputs_map_to_inputs=False)

    def score(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> Scored:
        """Return the scores; those of documents that came back as vectors are made here."""
        sides = cast("Sides", prepared.state)
        queries, documents = sides.split(outputs)
        scores = np.array([document.data[0] if document.data.ndim == 1 else 0 for document in documents], np.float32)
        as_vectors = [pair for pair, document in enumerate(documents) if document.data.ndim == 2]
        if as_vectors:
            scores[as_vectors] = compute_maxsim_score_batched(
                [queries[query].data for query in sides.query_of[as_vectors]],
                [documents[pair].data for pair in as_vectors],
            )
        if self.context.model.vector.similarity == "meanmaxsim":
            scores /= np.array([max(1, len(query.data)) for query in queries], np.float32)[sides.query_of]
        return Scored(scores, sides.prompt_token_ids(outputs))


def _keep_queries(sides: Sides) -> list[PoolingParams]:
    """Return the parameters of all prompts, so that the engine keeps the queries and scores the documents."""
    keys = [str(number) for number in range(len(sides.queries))]
    queries = [
        replace(params, late_interaction=LateInteractionParams("cache_query", key, len(pairs)))
        for key, params, pairs in zip(keys, sides.query_params, sides.pairs_of, strict=True)
    ]
    documents: list[PoolingParams] = []
    made: dict[tuple[int, int], PoolingParams] = {}
    for query, params in zip(sides.query_of.tolist(), sides.document_params, strict=True):
        known = made.get((query, id(params)))
        if known is None:
            late_interaction = LateInteractionParams("score_doc", keys[query])
            known = made[query, id(params)] = replace(params, late_interaction=late_interaction)
        documents.append(known)
    return [*documents, *queries]
