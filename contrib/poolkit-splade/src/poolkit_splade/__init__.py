"""The poolkit task `splade`: sparse embeddings, a weight for each token of the vocabulary that a text is about.

A masked language model says of every token how well each word of its vocabulary would stand there; the highest of these
scores over a text are its weights (SPLADE v2, https://arxiv.org/abs/2109.10086). What the model's hidden states become
stands in `head`, what requests and responses become in `processors`.
"""

from poolkit import SPARSE, Operation, Output, PoolingTask
from poolkit_splade.files import why_not
from poolkit_splade.schema import (
    IndexedWeights,
    Settings,
    SparseEmbeddingsRequest,
    SparseEmbeddingsResponse,
    SparseFormat,
)

__all__ = [
    "SPLADE",
    "IndexedWeights",
    "Settings",
    "SparseEmbeddingsRequest",
    "SparseEmbeddingsResponse",
    "SparseFormat",
]

SPLADE = PoolingTask(
    name="splade",
    api=1,
    summary="Sparse embeddings: a weight for each token that a text is about.",
    output=Output.HIDDEN,
    kind=SPARSE,
    head="poolkit_splade.head:create_head",
    requires=why_not,
    settings=Settings,
    operations=(
        Operation(
            name="sparse_embeddings",
            request=SparseEmbeddingsRequest,
            response=SparseEmbeddingsResponse,
            io_processor="poolkit_splade.processors:SparseEmbeddingsProcessor",
            per_prompt=("embeddings",),
            routes=("/splade/sparse_embeddings",),
        ),
    ),
)
