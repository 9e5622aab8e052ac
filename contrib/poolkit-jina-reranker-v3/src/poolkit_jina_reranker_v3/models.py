"""Recognises models of this kind."""

from poolkit import ModelInfo

__all__ = ["why_not"]

ARCHITECTURE = "JinaForRanking"


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot serve the task, or None where it can."""
    if model.architecture == ARCHITECTURE:
        return None
    return f"its architecture is {model.architecture or model.model_type!r}, not {ARCHITECTURE!r}"
