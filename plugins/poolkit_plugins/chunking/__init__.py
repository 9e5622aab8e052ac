"""Long texts: each is cut into chunks that fit the model, and what comes of them is put together again.

Enabled with `enable = ["chunking"]`. Vectors are averaged by token count before they are normalised; of scores the best
or the mean counts; the vectors of tokens are put end to end.
"""

from __future__ import annotations

import logging
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from poolkit import BindContext, hookimpl
from poolkit.errors import ConfigError

__all__ = ["Settings", "poolkit_wrap", "serves"]

logger = logging.getLogger(__name__)

serves = ("enable_chunked_processing", "max_embed_len")


class Settings(BaseModel):
    """The size of chunks, and the way to combine their scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_chunk_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Longest chunk, special tokens included; a longer prompt is cut. Default: the model's maximum.",
    )
    overlap_tokens: int = Field(default=0, ge=0, description="How many tokens a chunk repeats of the one before it.")
    combine: Literal["best", "mean"] = Field(
        default="best", description="What becomes of a text's scores: the highest of each label, or the mean."
    )


@hookimpl
def poolkit_wrap(context: BindContext, settings: Settings) -> list[object]:
    """Surround an operation whose outputs can be combined."""
    kind = context.task.output_kind
    if kind.join is None:
        _refuse(context, f"what task {context.task.name!r} answers for the chunks of a text cannot be put together")
        logger.info(
            "Operation %r of task %r is not chunked: outputs of kind %s cannot be put together.",
            context.operation.name,
            context.task.name,
            kind.name,
        )
        return []
    if context.model.text.only_queries:
        _refuse(context, f"{context.model.name} reads texts whole, as queries")
        logger.info("Operation %r is not chunked: %s reads texts whole.", context.operation.name, context.model.name)
        return []
    from poolkit_plugins.chunking._wrapper import Chunking  # here: numpy is not needed to list plugins

    return [Chunking(context, settings)]


def _refuse(context: BindContext, reason: str) -> None:
    """Raise ConfigError if the operator wants chunks of what cannot be chunked."""
    if context.model.config.pooler_config.enable_chunked_processing:
        raise ConfigError(f"pooler_config.enable_chunked_processing is True, but {reason}. Leave it out.")
