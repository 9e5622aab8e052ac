"""Lets a prompt that a wrapper has tokenized run without being tokenized again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from poolkit import PoolingParams, Prompt, TokenInputs

__all__ = ["as_prompt", "params_of_ids"]


def as_prompt(
    token_ids: Sequence[int], token_type_ids: Sequence[int] | None = None, *, prompt_length: int = 0
) -> Prompt:
    """Return the prompt of token ids that are complete. See `TokenInputs` for what goes with them."""
    if token_type_ids is None and prompt_length == 0:
        return token_ids
    return TokenInputs(token_ids, token_type_ids, prompt_length)


def params_of_ids(params: PoolingParams) -> PoolingParams:
    """Return the params of token ids that are complete: what params say of texts has been done."""
    return replace(
        params,
        truncate_prompt_tokens=None,
        truncation_side="right",
        max_tokens_per_query=None,
        max_tokens_per_doc=None,
        add_special_tokens=True,
        prompt_name=None,
    )
