"""Reads loaded models of transformers into tables for the kernels, one function for each kind of family."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit_plugins.cpu.families._table import Table

__all__ = ["FAMILIES", "STEP", "find_reader"]

STEP = 32
"""The kernels take widths that are multiples of it."""

FAMILIES: Mapping[str, str] = {
    "bert": "_bert:read_bert",
    "camembert": "_bert:read_bert",
    "distilbert": "_bert:read_distilbert",
    "electra": "_bert:read_bert",
    "gemma": "_decoders:read_decoder",
    "gemma2": "_decoders:read_decoder",
    "gemma3_text": "_decoders:read_decoder",
    "gte": "_rotary:read_rotary_bert",
    "jina_embeddings_v3": "_rotary:read_rotary_bert",
    "llama": "_decoders:read_decoder",
    "mistral": "_decoders:read_decoder",
    "modernbert": "_rotary:read_modernbert",
    "mpnet": "_bert:read_mpnet",
    "nomic_bert": "_rotary:read_rotary_bert",
    "qwen2": "_decoders:read_decoder",
    "qwen3": "_decoders:read_decoder",
    "roberta": "_bert:read_bert",
    "xlm-roberta": "_bert:read_bert",
}
"""The reader of each `model_type` of config.json, by its place in this package."""


def find_reader(model_type: str) -> Callable[[PreTrainedModel, int], Table]:
    """Import what reads a loaded base, with so many positions where it rotates queries and keys.

    It raises NotInTableError where a model asks for what the kernels do not have.
    """
    reader = pkgutil.resolve_name(f"{__name__}.{FAMILIES[model_type]}")
    return cast("Callable[[PreTrainedModel, int], Table]", reader)
