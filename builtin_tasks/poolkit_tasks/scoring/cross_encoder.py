"""Scores by a classifier with one label that reads a query and a document together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice

import numpy as np

from poolkit import (
    BindContext,
    PooledOutput,
    Prepared,
    Prompt,
    ScoreRequest,
    ScoreTemplate,
    TextPair,
)
from poolkit.errors import RequestError
from poolkit_tasks.scoring.pairs import Pairs, ScoringRequest, require_texts
from poolkit_tasks.scoring.processors import Scored, ScoringIOProcessor

__all__ = ["CrossEncoderIOProcessor"]


class CrossEncoderIOProcessor(ScoringIOProcessor):
    """Runs each pair through the model; its one label, activated as the model's files say, is the score."""

    never_blocks = True

    def __init__(self, context: BindContext) -> None:
        super().__init__(context)
        self._template = ScoreTemplate.of(context.model)

    def prepare(self, pairs: Pairs, request: ScoringRequest) -> Prepared:
        """Return a prompt for each pair."""
        model = self.context.model
        if model.num_labels != 1:
            raise RequestError(
                f"{model.name} has {model.num_labels} labels, and only a model with one label can score pairs. Ask it "
                "to classify, or serve another model."
            )
        prompts = self._pair(pairs, request) if self._template is None else self._render(self._template, pairs, request)
        # Sorted documents are not what was asked, one for one: rerank is answered whole or not at all.
        return Prepared(prompts, pairs.params, outputs_map_to_inputs=isinstance(request, ScoreRequest))

    def score(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> Scored:  # noqa: ARG002
        """Return the label's score for each pair."""
        scores = np.array([output.data.item() for output in outputs], np.float32)
        return Scored(scores, [output.prompt_token_ids for output in outputs])

    def _pair(self, pairs: Pairs, request: ScoringRequest) -> Sequence[Prompt]:
        """Return the two texts of each pair, which the model joins itself."""
        self.refuse_instruction(request)
        # As sentence-transformers does, the model's own prompt goes before the first text.
        model = self.context.model
        prompt = model.text.prompts.get(model.text.default_prompt_name or "", "")
        queries = require_texts(pairs.queries)
        behind_prompt = {query: prompt + query for query in dict.fromkeys(queries)}
        documents = require_texts(pairs.documents)
        return [TextPair(behind_prompt[query], document) for query, document in zip(queries, documents, strict=True)]

    def _render(self, template: ScoreTemplate, pairs: Pairs, request: ScoringRequest) -> Sequence[Prompt]:
        """Return a text for each pair, made by the model's template."""
        prompts: list[Prompt] = []
        queries, documents = require_texts(pairs.queries), iter(require_texts(pairs.documents))
        limits = [params.max_tokens_per_query for params in pairs.params]
        for (query, limit), alike in groupby(zip(queries, limits, strict=True)):
            shortened = query if limit is None else self.context.encoder.shorten(query, tokens=limit)
            count = len(list(alike))
            prompts += template.render(shortened, list(islice(documents, count)), instruction=request.instruction)
        return prompts
