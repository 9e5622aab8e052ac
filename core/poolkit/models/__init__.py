"""Reads what a model is and can do from its configuration files, before any weight is loaded."""

from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.contract.model_specs import (
    ClassifierSpec,
    DenseSpec,
    Expansion,
    LayerMixSpec,
    LayerNormSpec,
    LayerSpec,
    LogitScore,
    MultiVectorSpec,
    NormalizeSpec,
    PoolingMode,
    PoolingSpec,
    ProblemType,
    RerankerSpec,
    ScorePrompt,
    Similarity,
    StepSpec,
    TextSpec,
    VectorSpec,
)
from poolkit.contract.params import InputType
from poolkit.models.files import find_model_folder
from poolkit.models.read import ModelTables, read_model

__all__ = [
    "ClassifierSpec",
    "Decision",
    "DenseSpec",
    "Expansion",
    "InputType",
    "LayerMixSpec",
    "LayerNormSpec",
    "LayerSpec",
    "LogitScore",
    "ModelInfo",
    "ModelTables",
    "MultiVectorSpec",
    "NormalizeSpec",
    "PoolingMode",
    "PoolingSpec",
    "ProblemType",
    "RerankerSpec",
    "ScorePrompt",
    "Similarity",
    "StepSpec",
    "TextSpec",
    "VectorSpec",
    "find_model_folder",
    "read_model",
]
