"""The poolkit task `listwise_rerank`: documents scored against a query, and against each other, in one prompt.

jina-reranker-v3 (https://arxiv.org/abs/2509.25085) is a Qwen3 that reads the query and all documents together; a vector
is taken after each of them. The wording and the arithmetic are those of the model's own `rerank`. What the model reads
stands in `prompt`, `cutting`, `blocks` and `listing`; what its hidden states become in `head` and `scores`.
"""

from poolkit import Operation, Output, PoolingTask, RerankRequest, RerankResponse, ScoreRequest, ScoreResponse
from poolkit_jina_reranker_v3.models import why_not
from poolkit_jina_reranker_v3.settings import Settings

__all__ = ["LISTWISE_RERANK", "Settings"]

LISTWISE_RERANK = PoolingTask(
    name="listwise_rerank",
    api=1,
    summary="How relevant documents are to a query, read all together.",
    output=Output.HIDDEN,
    head="poolkit_jina_reranker_v3.head:create_head",
    parameters=("use_activation",),
    requires=why_not,
    settings=Settings,
    operations=(
        Operation(
            name="rerank",
            request=RerankRequest,
            response=RerankResponse,
            io_processor="poolkit_jina_reranker_v3.processors:RerankProcessor",
        ),
        Operation(
            name="score",
            request=ScoreRequest,
            response=ScoreResponse,
            io_processor="poolkit_jina_reranker_v3.processors:ScoreProcessor",
        ),
    ),
)
