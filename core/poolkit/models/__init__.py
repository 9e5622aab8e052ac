"""What a model is and can do, read from its configuration files before any weight is loaded."""

from poolkit.contract.model_info import (
    AnswerTokens,
    Decision,
    ModelInfo,
    PoolingMode,
    ProblemType,
    ScorePrompt,
    Similarity,
)
from poolkit.contract.model_specs import (
    DenseSpec,
    Expansion,
    ImageSpec,
    InputType,
    LayerMixSpec,
    LayerNormSpec,
    LayerSpec,
    MultiVectorSpec,
    NormalizeSpec,
)
from poolkit.models._read import read_model

__all__ = [
    "AnswerTokens",
    "Decision",
    "DenseSpec",
    "Expansion",
    "ImageSpec",
    "InputType",
    "LayerMixSpec",
    "LayerNormSpec",
    "LayerSpec",
    "ModelInfo",
    "MultiVectorSpec",
    "NormalizeSpec",
    "PoolingMode",
    "ProblemType",
    "ScorePrompt",
    "Similarity",
    "read_model",
]
