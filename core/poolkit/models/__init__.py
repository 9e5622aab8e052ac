"""What a model is and can do, read from its configuration files before any weight is loaded."""

from poolkit.models._read import read_model
from poolkit.models.info import (
    AnswerTokens,
    Decision,
    ModelInfo,
    PoolingMode,
    ProblemType,
    ScorePrompt,
    Similarity,
)
from poolkit.models.specs import (
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
