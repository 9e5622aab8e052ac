"""The prompts that a model was trained with: texts that it wants before others, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from poolkit.contract.model_info import Decision
from poolkit.errors import ModelError

__all__ = ["prompt_decisions", "read_prompts"]

SOURCE = "config_sentence_transformers.json"


def read_prompts(settings: Mapping[str, object], path: Path) -> tuple[Mapping[str, str], str | None]:
    """Return the prompts by name, and the name of the one used by default, as `settings` from `path` have them."""
    prompts = settings.get("prompts") or {}
    name = settings.get("default_prompt_name")
    if not isinstance(prompts, dict):
        raise ModelError(f"{path} has prompts {prompts!r}; they must be an object of texts. Fetch the model again.")
    if name is not None and name not in prompts:
        raise ModelError(f"{path} has default_prompt_name {name!r}, but its prompts do not hold that name.")
    # To sentence-transformers, null is a prompt that was never filled in: no prompt.
    return {str(key): str(text or "") for key, text in prompts.items()}, None if name is None else str(name)


def prompt_decisions(prompts: Mapping[str, str], default_name: str | None, *, pools_prompt: bool) -> Iterator[Decision]:
    """Yield the lines of the start-up report about prompts: empty ones are not worth a line each."""
    if not any(prompts.values()):
        yield Decision("prompts", "none", "the model's files name none")
    for name, text in prompts.items():
        if text:
            is_default = ", put before a text by default" if name == default_name else ""
            yield Decision(f"prompt {name!r}", f"{text!r}{is_default}", SOURCE)
    if any(prompts.values()) and not pools_prompt:
        yield Decision("prompt tokens", "left out of pooling", "include_prompt of the Pooling module")
