"""The IO processor of `classify`: prompts in, labels with their scores out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from poolkit import (
    Activation,
    Classification,
    ClassifyRequest,
    ClassifyResponse,
    LabelScore,
    PooledOutput,
    PoolingIOProcessor,
    PoolingParams,
    Prepared,
    ProblemType,
    Usage,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassifyProcessor"]

THRESHOLD = 0.5
LOGIT_THRESHOLD = 0.0
"""The logit whose sigmoid is 0.5."""


class ClassifyProcessor(PoolingIOProcessor[ClassifyRequest, ClassifyResponse]):
    """Classify each prompt."""

    never_blocks = True

    def pre_process(self, request: ClassifyRequest) -> Prepared:
        """Return the request's prompts."""
        prompts = request.prompts()
        return Prepared(prompts, request.params(prompts=len(prompts)), state=request)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> ClassifyResponse:
        """Return the labels of each prompt, highest score first."""
        request = prepared.state
        assert isinstance(request, ClassifyRequest)
        return ClassifyResponse(
            data=[
                self._classify(output.data, request.top_k, self._threshold(request, params))
                for output, params in zip(outputs, prepared.params_of_each, strict=True)
            ],
            prompt_token_ids=[output.prompt_token_ids for output in outputs],
            usage=Usage.of(outputs),
        )

    def _classify(self, scores: NDArray[np.float32], top_k: int | None, threshold: float | None) -> Classification:
        names = self.context.model.label_names
        assert names is not None
        order = np.argsort(-scores, kind="stable")
        ranked = [LabelScore(label=names[int(index)], score=float(scores[index])) for index in order]
        listed = [one for one in ranked[:top_k] if threshold is None or one.score > threshold]
        return Classification(label=ranked[0].label, labels=listed, probs=scores)

    def _threshold(self, request: ClassifyRequest, params: PoolingParams) -> float | None:
        """Return the score that a label must exceed to be listed."""
        model = self.context.model
        assert model.classifier is not None
        if request.threshold is not None or model.classifier.problem_type is not ProblemType.MULTI_LABEL:
            return request.threshold
        is_logit = model.label_activation is Activation.IDENTITY or not self.context.encoder.resolve(params).activates
        return LOGIT_THRESHOLD if is_logit else THRESHOLD
