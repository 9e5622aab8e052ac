"""Pairs every text with every label as a prompt, and turns their logits into rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from poolkit import BindContext, PooledOutput, PoolingIOProcessor, PoolingParams, Prepared, TextPair, Usage
from poolkit.errors import RequestError
from poolkit_zero_shot.inference import Verdicts, find_verdicts
from poolkit_zero_shot.schema import Ranking, Settings, ZeroShotRequest, ZeroShotResponse

__all__ = ["ZeroShotProcessor"]


class ZeroShotProcessor(PoolingIOProcessor[ZeroShotRequest, ZeroShotResponse]):
    """Ranks the labels of each text. The arithmetic is that of transformers' ZeroShotClassificationPipeline."""

    def __init__(self, context: BindContext) -> None:
        super().__init__(context)
        assert isinstance(context.settings, Settings)
        verdicts = find_verdicts(context.model)
        assert verdicts is not None, "the task requires a label for entailment"
        self._verdicts = verdicts
        self._max_pairs = context.settings.max_pairs

    def pre_process(self, request: ZeroShotRequest) -> Prepared:
        """Return each text with each label: the labels of the first text, then those of the next one."""
        texts, labels = request.texts, request.candidate_labels
        if len(texts) * len(labels) > self._max_pairs:
            raise RequestError(
                f"{len(texts)} texts with {len(labels)} labels make {len(texts) * len(labels)} pairs; this server "
                f"takes at most {self._max_pairs} in a request. Send fewer texts at a time.",
                param="input",
            )
        hypotheses = [request.hypothesis_template.format(label) for label in labels]
        return Prepared(
            [TextPair(text, hypothesis) for text in texts for hypothesis in hypotheses],
            PoolingParams(truncate_prompt_tokens=request.truncate_prompt_tokens),
            state=request,
            outputs_map_to_inputs=False,  # one pair is of no use without the others
        )

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> ZeroShotResponse:
        """Return the ranking of each text."""
        request = cast("ZeroShotRequest", prepared.state)
        labels = request.candidate_labels
        data = []
        for index in range(len(request.texts)):
            of_text = outputs[index * len(labels) : (index + 1) * len(labels)]
            logits = np.stack([output.data for output in of_text])  # (labels, verdicts)
            scores = _score(logits, self._verdicts, is_each_alone=request.multi_label or len(labels) == 1)
            # Ascending and then reversed, as the pipeline sorts: that decides the order of labels with equal scores.
            order = np.argsort(scores)[::-1]
            data.append(Ranking(index=index, labels=[labels[i] for i in order], scores=scores[order].tolist()))
        return ZeroShotResponse(data=data, usage=Usage.of(outputs))


def _score(logits: NDArray[np.float32], verdicts: Verdicts, *, is_each_alone: bool) -> NDArray[np.float32]:
    """Return how well each label fits. (labels, verdicts) -> (labels,)

    Alone, a label's entailment is weighed against its contradiction; else the labels' entailments against each other.
    """
    if is_each_alone:
        return _softmax(logits[:, [verdicts.contradiction, verdicts.entailment]])[:, 1]
    return _softmax(logits[:, verdicts.entailment])


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True), np.float32)
