"""Adapters of this engine for model families that need special care."""

from poolkit.engine.torch.families.family import LoadBackbone, LoadHead, TorchFamily, find_family
from poolkit.engine.torch.families.logit_score import LOGIT_SCORE
from poolkit.engine.torch.families.rewards import TOKEN_SCORES

__all__ = ["OWN_FAMILIES", "LoadBackbone", "LoadHead", "TorchFamily", "find_family"]

OWN_FAMILIES = (
    (lambda info: info.reranker.logit_score is not None, LOGIT_SCORE),
    (lambda info: info.architecture.endswith("ForCausalLM"), TOKEN_SCORES),
)
"""Families that are told by what was read of a model, and not by an entry of the table: each with what tells."""
