"""The files that make an XLM-RoBERTa a BGE-M3."""

from poolkit import ModelInfo

__all__ = ["COLBERT_LINEAR", "SPARSE_LINEAR", "why_not"]

SPARSE_LINEAR = "sparse_linear.pt"
COLBERT_LINEAR = "colbert_linear.pt"


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot serve the task, or None where it can."""
    missing = [name for name in (SPARSE_LINEAR, COLBERT_LINEAR) if not (model.path / name).is_file()]
    return f"its folder has no {' and no '.join(missing)}" if missing else None
