"""Scoring: how well documents answer queries. The tasks embed, classify and token_embed each offer it in their way.

What each of them adds to its operations stands here; `sides` and `processors` hold what they share.
"""

from poolkit import Operation, RerankRequest, RerankResponse, ScoreRequest, ScoreResponse

__all__ = ["BI_ENCODER_OPERATIONS", "CROSS_ENCODER_OPERATIONS", "LATE_INTERACTION_OPERATIONS"]


def _operations(io_processor: str) -> tuple[Operation, ...]:
    return (
        Operation(name="score", request=ScoreRequest, response=ScoreResponse, io_processor=io_processor),
        Operation(name="rerank", request=RerankRequest, response=RerankResponse, io_processor=io_processor),
    )


BI_ENCODER_OPERATIONS = _operations("poolkit_tasks.scoring.bi_encoder:BiEncoderIOProcessor")
CROSS_ENCODER_OPERATIONS = _operations("poolkit_tasks.scoring.cross_encoder:CrossEncoderIOProcessor")
LATE_INTERACTION_OPERATIONS = _operations("poolkit_tasks.scoring.late_interaction:LateInteractionIOProcessor")
