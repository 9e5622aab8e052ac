"""Fields and answers that OpenAI's route shares with those that vLLM modelled on it."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from poolkit.contract import Call, Reply, Served
from poolkit.errors import RequestError
from poolkit.operations import PromptsRequest, Usage

__all__ = ["ClientFields", "ModelFields", "list_answer", "require_input", "to_base64"]


class ModelFields(BaseModel):
    """Fields about the model and the client, beside those of the operation."""

    model: str | None = Field(default=None, description="A name of the served model. Default: the only one.")
    user: str | None = Field(default=None, description="Taken and not used.")


class ClientFields(ModelFields):
    """The same with a choice of how numbers are sent."""

    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="base64: little-endian float32 instead of lists of numbers."
    )


def require_input(request: PromptsRequest, call: Call, served: Served) -> PromptsRequest:  # noqa: ARG001 - a `decode`
    """Return the request. Raises RequestError where it has no prompt: these clients take no answer without one."""
    if isinstance(request.input, list) and not request.input:
        raise RequestError("input is empty. Send at least one text or list of token ids.", param="input")
    return request


def list_answer(prefix: str, call: Call, *, data: Iterable[Mapping[str, object]], usage: Usage) -> Reply:
    """Write the frame around one item per prompt; `prefix` and the request's id are the answer's."""
    return Reply.json(
        {
            "id": f"{prefix}-{call.request_id}",
            "object": "list",
            "created": int(time.time()),
            "model": call.model,
            "data": [{"index": index, **item} for index, item in enumerate(data)],
            "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
        }
    )


def to_base64(array: NDArray[np.float32]) -> str:
    """Write an array as little-endian float32, row by row."""
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").data).decode()
