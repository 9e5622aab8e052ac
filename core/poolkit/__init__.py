"""poolkit: a plugin-based library and server for embedding, classification, reward and reranking models.

The public names are those of `__all__`, `poolkit.errors` and `poolkit.testing`. Importing poolkit loads neither torch
nor transformers nor fastapi: those wait until a model is loaded or served.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from poolkit.config import ModelConfig, PluginConfig, PoolerConfig
from poolkit.contract import (
    API_OLDEST,
    API_VERSION,
    Activation,
    BindContext,
    Call,
    ClassifierSpec,
    Dialect,
    Failure,
    ImagePrompt,
    LateInteractionParams,
    LogitScore,
    ModelInfo,
    NoBody,
    NoSettings,
    Operation,
    Output,
    PooledOutput,
    PoolingIOProcessor,
    PoolingParams,
    PoolingSpec,
    PoolingTask,
    Prepared,
    ProblemType,
    Prompt,
    Removed,
    Renamed,
    Reply,
    RerankerSpec,
    Served,
    StepSpec,
    TemplatedText,
    TextPair,
    TextSpec,
    TextToken,
    TokenInputs,
    VectorSpec,
    hookimpl,
)
from poolkit.engine import Head, HeadFactory, Pooled, Segments, load_masked_lm_head
from poolkit.engine.late_interaction.maxsim import compute_maxsim_score_batched

if TYPE_CHECKING:
    from poolkit.offline.llm import LLM
    from poolkit.offline.outputs import (
        ClassificationOutput,
        ClassificationRequestOutput,
        EmbeddingOutput,
        EmbeddingRequestOutput,
        PoolingOutput,
        PoolingRequestOutput,
        RequestOutput,
        ScoringOutput,
        ScoringRequestOutput,
        TokenClassificationOutput,
        TokenClassificationRequestOutput,
    )
    from poolkit.operations import (
        POOLING,
        AggregationStrategy,
        Classification,
        ClassifyRequest,
        ClassifyResponse,
        EmbeddingsRequest,
        EmbeddingsResponse,
        Entity,
        FloatArray,
        LabelScore,
        PoolingFields,
        PoolingProcessor,
        PoolingRequest,
        PoolingResponse,
        PromptsRequest,
        RerankRequest,
        RerankResponse,
        RerankResult,
        ScoreRequest,
        ScoreResponse,
        TokenClassification,
        TokenClassifyRequest,
        TokenClassifyResponse,
        Usage,
        require_text,
    )
    from poolkit.server import create_app
    from poolkit.tokenization.score_template import ScoreTemplate

__all__ = [
    "API_OLDEST",
    "API_VERSION",
    "LLM",
    "POOLING",
    "Activation",
    "AggregationStrategy",
    "BindContext",
    "Call",
    "Classification",
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "ClassifierSpec",
    "ClassifyRequest",
    "ClassifyResponse",
    "Dialect",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "Entity",
    "Failure",
    "FloatArray",
    "Head",
    "HeadFactory",
    "ImagePrompt",
    "LabelScore",
    "LateInteractionParams",
    "LogitScore",
    "ModelConfig",
    "ModelInfo",
    "NoBody",
    "NoSettings",
    "Operation",
    "Output",
    "PluginConfig",
    "Pooled",
    "PooledOutput",
    "PoolerConfig",
    "PoolingFields",
    "PoolingIOProcessor",
    "PoolingOutput",
    "PoolingParams",
    "PoolingProcessor",
    "PoolingRequest",
    "PoolingRequestOutput",
    "PoolingResponse",
    "PoolingSpec",
    "PoolingTask",
    "Prepared",
    "ProblemType",
    "Prompt",
    "PromptsRequest",
    "Removed",
    "Renamed",
    "Reply",
    "RequestOutput",
    "RerankRequest",
    "RerankResponse",
    "RerankResult",
    "RerankerSpec",
    "ScoreRequest",
    "ScoreResponse",
    "ScoreTemplate",
    "ScoringOutput",
    "ScoringRequestOutput",
    "Segments",
    "Served",
    "StepSpec",
    "TemplatedText",
    "TextPair",
    "TextSpec",
    "TextToken",
    "TokenClassification",
    "TokenClassificationOutput",
    "TokenClassificationRequestOutput",
    "TokenClassifyRequest",
    "TokenClassifyResponse",
    "TokenInputs",
    "Usage",
    "VectorSpec",
    "compute_maxsim_score_batched",
    "create_app",
    "hookimpl",
    "load_masked_lm_head",
    "require_text",
]

_HOMES_WITH_NUMPY = (
    "poolkit.operations",
    "poolkit.offline.outputs",
    "poolkit.tokenization.score_template",
    "poolkit.offline.llm",
    "poolkit.server",  # last: it imports fastapi
)
"""Imported when a name of theirs is first used: numpy would be most of the start-up time of  poolkit plugins list."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in map(import_module, _HOMES_WITH_NUMPY):
            if name in home.__all__:
                globals()[name] = getattr(home, name)
                return globals()[name]
    raise AttributeError(f"module 'poolkit' has no attribute {name!r}")
