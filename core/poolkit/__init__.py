"""poolkit: a plugin-based library and server for embedding, classification, reward and reranking models.

The public names are those of `__all__`, `poolkit.errors` and `poolkit.testing`. Importing them loads neither torch nor
transformers nor fastapi: those wait until a model is loaded or served.
"""

from poolkit.config import ModelConfig, PluginConfig, PoolerConfig
from poolkit.contract import (
    API_OLDEST,
    API_VERSION,
    Activation,
    BindContext,
    NoSettings,
    Operation,
    Output,
    PooledOutput,
    PoolingIOProcessor,
    PoolingParams,
    PoolingTask,
    Prepared,
    Prompt,
    Removed,
    Renamed,
    hookimpl,
)
from poolkit.llm import LLM
from poolkit.models import ModelInfo
from poolkit.operations import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    FloatArray,
    PoolingRequest,
    PoolingResponse,
    Usage,
)
from poolkit.outputs import (
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    RequestOutput,
)
from poolkit.processors import PoolingProcessor

__all__ = [
    "API_OLDEST",
    "API_VERSION",
    "LLM",
    "Activation",
    "BindContext",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "FloatArray",
    "ModelConfig",
    "ModelInfo",
    "NoSettings",
    "Operation",
    "Output",
    "PluginConfig",
    "PooledOutput",
    "PoolerConfig",
    "PoolingIOProcessor",
    "PoolingOutput",
    "PoolingParams",
    "PoolingProcessor",
    "PoolingRequest",
    "PoolingRequestOutput",
    "PoolingResponse",
    "PoolingTask",
    "Prepared",
    "Prompt",
    "Removed",
    "Renamed",
    "RequestOutput",
    "Usage",
    "hookimpl",
]
