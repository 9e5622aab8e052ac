"""What OpenAI's route and those that vLLM modelled on it share: some request fields and the frame of the answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from poolkit.errors import RequestError
from poolkit.operations import Usage
from poolkit.server.dialects.codec import to_json

__all__ = ["ClientFields", "ModelFields", "check_not_empty", "list_answer", "to_base64"]


class ModelFields(BaseModel):
    """Fields about the model and the client, beside those of the operation."""

    model: str | None = Field(default=None, description="The served model's name, or nothing.")
    user: str | None = Field(default=None, description="Taken and not used.")


class ClientFields(ModelFields):
    """The same with a choice of how numbers are sent."""

    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="base64: little-endian float32 instead of lists of numbers."
    )


def check_not_empty(prompts: object) -> None:
    """Raise RequestError for an input without any prompt: these clients take no answer for one."""
    if prompts == []:
        raise RequestError("input is empty. Send at least one text or list of token ids.", param="input")


def list_answer(answer_id: str, *, model: str, data: Iterable[Mapping[str, object]], usage: Usage) -> bytes:
    """Write the frame around one item per prompt."""
    return to_json(
        {
            "id": answer_id,
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": [{"index": index, **item} for index, item in enumerate(data)],
            "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
        }
    )


def to_base64(array: NDArray[np.float32]) -> str:
    """Write an array as little-endian float32, row by row."""
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").data).decode()
