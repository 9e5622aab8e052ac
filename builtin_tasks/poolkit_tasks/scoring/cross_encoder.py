"""Scores by a classifier with one label that reads a query and a document together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from poolkit import (
    BindContext,
    PooledOutput,
    Prepared,
    Prompt,
    ScoreRequest,
    ScoreTemplate,
    TextPair,
    require_text,
)
from poolkit.errors import RequestError
from poolkit_tasks.scoring.pairs import Pair, ScoringRequest
from poolkit_tasks.scoring.processors import Scored, ScoringIOProcessor

__all__ = ["CrossEncoderIOProcessor"]


class CrossEncoderIOProcessor(ScoringIOProcessor):
    """Runs each pair through the model; its one label, activated as the model's files say, is the score."""

    def __init__(self, context: BindContext) -> None:
        super().__init__(context)
        self._template = ScoreTemplate.of(context.model)

    def prepare(self, pairs: Sequence[Pair], request: ScoringRequest) -> Prepared:
        """Return a prompt for each pair."""
        model = self.context.model
        if model.num_labels != 1:
            raise RequestError(
                f"{model.name} has {model.num_labels} labels, and only a model with one label can score pairs. Ask it "
                "to classify, or serve another model."
            )
        prompts = self._render(pairs, request)
        # Sorted documents are not what was asked, one for one: rerank is answered whole or not at all.
        return Prepared(
            prompts, [pair.params for pair in pairs], outputs_map_to_inputs=isinstance(request, ScoreRequest)
        )

    def score(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> Scored:  # noqa: ARG002
        """Return the label's score for each pair."""
        scores = np.array([output.data.item() for output in outputs], np.float32)
        return Scored(scores, [output.prompt_token_ids for output in outputs])

    def _render(self, pairs: Sequence[Pair], request: ScoringRequest) -> list[Prompt]:
        """Return what the model reads of each pair: two texts, where it has no template for them."""
        if self._template is None:
            self.refuse_instruction(request)
            # As sentence-transformers does, the model's own prompt goes before the first text.
            model = self.context.model
            prompt = model.text.prompts.get(model.text.default_prompt_name or "", "")
            return [TextPair(prompt + require_text(pair.query), require_text(pair.document)) for pair in pairs]
        prompts: list[Prompt] = []
        for (query, limit), alike in groupby(pairs, lambda pair: (pair.query, pair.params.max_tokens_per_query)):
            text = require_text(query)
            shortened = text if limit is None else self.context.encoder.shorten(text, tokens=limit)
            documents = [require_text(pair.document) for pair in alike]
            prompts += self._template.render(shortened, documents, instruction=request.instruction)
        return prompts
