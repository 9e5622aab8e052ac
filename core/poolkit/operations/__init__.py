"""The standard operations: requests and responses that every dialect and `LLM` know by name.

A third-party task that serves a standard operation uses these models, and every client that speaks one of the
operation's dialects can then be pointed at it.
"""

from poolkit.operations.answers import FloatArray, Usage
from poolkit.operations.classify import Classification, ClassifyRequest, ClassifyResponse, LabelScore
from poolkit.operations.embeddings import EmbeddingsRequest, EmbeddingsResponse
from poolkit.operations.modalities import require_text
from poolkit.operations.pooling import POOLING, PoolingProcessor, PoolingRequest, PoolingResponse
from poolkit.operations.prompts import PoolingFields, PromptsRequest
from poolkit.operations.scoring import RerankRequest, RerankResponse, RerankResult, ScoreRequest, ScoreResponse
from poolkit.operations.token_classify import (
    AggregationStrategy,
    Entity,
    TokenClassification,
    TokenClassifyRequest,
    TokenClassifyResponse,
)

__all__ = [
    "POOLING",
    "AggregationStrategy",
    "Classification",
    "ClassifyRequest",
    "ClassifyResponse",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "Entity",
    "FloatArray",
    "LabelScore",
    "PoolingFields",
    "PoolingProcessor",
    "PoolingRequest",
    "PoolingResponse",
    "PromptsRequest",
    "RerankRequest",
    "RerankResponse",
    "RerankResult",
    "ScoreRequest",
    "ScoreResponse",
    "TokenClassification",
    "TokenClassifyRequest",
    "TokenClassifyResponse",
    "Usage",
    "require_text",
]
