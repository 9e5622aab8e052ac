"""Which of a model's own prompts goes before a text."""

from __future__ import annotations

from poolkit.contract import PoolingParams
from poolkit.errors import RequestError, did_you_mean
from poolkit.models import ModelInfo

__all__ = ["find_prompt"]

NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""What the prompt for each input type is called: the first of these names that the model has (sentence-transformers'
`encode_query` and `encode_document`)."""


def find_prompt(info: ModelInfo, params: PoolingParams) -> str:
    """Return the prompt that is put before a text, "" for none.

    A text that is said to be a query or a document never gets the default prompt: that may be the other one's.

    Raises RequestError where the model has no prompt of the name that is asked for.
    """
    prompts = info.text.prompts
    if params.prompt_name is not None:
        if params.prompt_name not in prompts:
            known = f"Its prompts are {', '.join(prompts)}." if prompts else "It has none: leave it out."
            raise RequestError(
                f"{info.name} has no prompt named {params.prompt_name!r}."
                f"{did_you_mean(params.prompt_name, prompts)} {known}",
                param="prompt_name",
            )
        return prompts[params.prompt_name]
    if params.input_type is not None:
        return next((prompts[name] for name in NAMES[params.input_type] if name in prompts), "")
    return prompts.get(info.text.default_prompt_name or "", "")
