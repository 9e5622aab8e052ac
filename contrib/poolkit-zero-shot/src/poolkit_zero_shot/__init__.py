"""The poolkit task `zero_shot`: how well labels of the caller's own choice fit a text.

A model of natural language inference (NLI) reads the text and a sentence made of the label, such as "This example is
sports.", and tells whether the one entails the other. What the task does stands in `processors`, and how clients of the
Hugging Face hub are answered in `dialects`.
"""

from poolkit import Operation, Output, PoolingTask
from poolkit_zero_shot.inference import why_not
from poolkit_zero_shot.schema import Ranking, Settings, ZeroShotRequest, ZeroShotResponse

__all__ = ["ZERO_SHOT", "Ranking", "Settings", "ZeroShotRequest", "ZeroShotResponse"]

ZERO_SHOT = PoolingTask(
    name="zero_shot",
    api=1,
    summary="How well labels of your own choice fit a text.",
    output=Output.LOGITS,
    requires=why_not,
    settings=Settings,
    operations=(
        Operation(
            name="zero_shot",
            request=ZeroShotRequest,
            response=ZeroShotResponse,
            io_processor="poolkit_zero_shot.processors:ZeroShotProcessor",
            routes=("/zero_shot/classify",),
        ),
    ),
)
