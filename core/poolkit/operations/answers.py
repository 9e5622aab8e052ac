"""Parts of several operations' responses: arrays, and the tokens that were used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PlainSerializer, SkipValidation, WithJsonSchema

from poolkit.contract import PooledOutput

__all__ = ["FloatArray", "PooledData", "Usage"]

FloatArray = Annotated[
    SkipValidation[NDArray[np.float32]],
    PlainSerializer(lambda array: array.tolist(), when_used="json"),
    WithJsonSchema({"type": "array", "items": {}, "description": "Nested lists of numbers."}),
]
"""A numpy array in a response: stays an array in Python, becomes nested lists in JSON."""

PooledData = Annotated[
    SkipValidation[NDArray[np.float32]],
    PlainSerializer(lambda data: data.tolist() if isinstance(data, np.ndarray) else data, when_used="json"),
    WithJsonSchema({"description": "Nested lists of numbers, or what the task's kind of output makes of an output."}),
]
"""The output of one prompt: an array but for kinds of output that no array says, whose `OutputKind.to_json` made it."""


class Usage(BaseModel):
    """Tokens that ran through the model, special tokens included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, outputs: Sequence[PooledOutput]) -> Usage:
        """Return the tokens of all prompts together."""
        tokens = sum([len(output.prompt_token_ids) for output in outputs])
        return cls(prompt_tokens=tokens, total_tokens=tokens)
