"""What a model is and can do, read from its configuration files before any weight is loaded."""

from poolkit.models._read import read_model
from poolkit.models.info import Decision, DenseSpec, ModelInfo, PoolingMode, ProblemType

__all__ = ["Decision", "DenseSpec", "ModelInfo", "PoolingMode", "ProblemType", "read_model"]
