"""What a model is and can do, read from its configuration files before any weight is loaded."""

from poolkit.models.info import Decision, DenseSpec, ModelInfo, PoolingMode

__all__ = ["Decision", "DenseSpec", "ModelInfo", "PoolingMode"]
