"""Lets a prompt that a wrapper has tokenized run without being tokenized again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from poolkit import PoolingParams, Prompt, TextPair

if TYPE_CHECKING:
    from poolkit.engine import EncodedPrompt

__all__ = ["as_prompt", "params_of_ids"]


def as_prompt(prompt: Prompt, encoded: EncodedPrompt) -> tuple[Prompt, PoolingParams]:
    """Return what runs as `prompt` does, with its params: its token ids, but for a pair, whose ids are only half of it.

    Token ids do not tell where the second text of a pair begins.
    """
    if isinstance(prompt, TextPair):
        return prompt, encoded.params
    return encoded.token_ids, params_of_ids(encoded.params)


def params_of_ids(params: PoolingParams) -> PoolingParams:
    """Return the params of token ids that are complete: what params say of texts has been done."""
    return replace(params, truncate_prompt_tokens=None, truncation_side="right", add_special_tokens=True)
