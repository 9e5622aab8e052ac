"""The standard operations: requests and responses that every dialect and `LLM` know by name.

A third-party task that serves a standard operation uses these models, and every client that speaks one of the
operation's dialects can then be pointed at it.
"""

from poolkit.operations.answers import FloatArray, Usage
from poolkit.operations.embeddings import EmbeddingsRequest, EmbeddingsResponse
from poolkit.operations.pooling import PoolingRequest, PoolingResponse
from poolkit.operations.prompts import PoolingFields, PromptsRequest
from poolkit.operations.scoring import RerankRequest, RerankResponse, RerankResult, ScoreRequest, ScoreResponse

__all__ = [
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "FloatArray",
    "PoolingFields",
    "PoolingRequest",
    "PoolingResponse",
    "PromptsRequest",
    "RerankRequest",
    "RerankResponse",
    "RerankResult",
    "ScoreRequest",
    "ScoreResponse",
    "Usage",
]
