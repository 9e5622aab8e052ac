"""The poolkit task `bge_m3`: a dense vector, sparse weights and a vector for each token, from one forward pass.

BGE-M3 (https://arxiv.org/abs/2402.03216) is an XLM-RoBERTa with two linear layers of its own. The arithmetic is that of
FlagEmbedding's BGEM3FlagModel. What the model's hidden states become stands in `head`, what requests and responses
become in `processors`.
"""

from poolkit import Activation, Operation, Output, PoolingTask
from poolkit_bge_m3.files import why_not
from poolkit_bge_m3.schema import EmbeddingsM3Request, EmbeddingsM3Response, M3Embedding

__all__ = ["BGE_M3", "EmbeddingsM3Request", "EmbeddingsM3Response", "M3Embedding"]

BGE_M3 = PoolingTask(
    name="bge_m3",
    api=1,
    summary="A dense vector, sparse weights and token vectors from one forward pass.",
    output=Output.HIDDEN,
    head="poolkit_bge_m3.head:create_head",
    activation=Activation.NORMALIZE,
    requires=why_not,
    operations=(
        Operation(
            name="embeddings_m3",
            request=EmbeddingsM3Request,
            response=EmbeddingsM3Response,
            io_processor="poolkit_bge_m3.processors:EmbeddingsM3Processor",
            per_prompt=("data",),
            routes=("/bge_m3/embeddings",),
        ),
    ),
)
