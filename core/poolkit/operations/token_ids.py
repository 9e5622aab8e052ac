"""Token ids in requests and responses: int32 arrays, which JSON writes as lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, SkipValidation, TypeAdapter, WithJsonSchema

if TYPE_CHECKING:
    from poolkit.contract import TokenIds

__all__ = ["PromptTokenIds", "RequestTokenIds"]

LARGEST = int(np.iinfo(np.int32).max)

TokenId = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]

LISTS = TypeAdapter(list[TokenId])


def _read(value: object) -> TokenIds:
    """Return token ids as one array, without Python code for each.

    Where an item is none, pydantic looks at each and says which.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "iu":
            raise ValueError(f"must be one row of integers, got an array of shape {value.shape} and type {value.dtype}")
        ids = value
    elif isinstance(value, list | tuple) and set(map(type, value)) <= {int}:
        try:
            ids = np.array(value, np.int64)
        except OverflowError:
            return _each(value)
    else:
        return _each(value)
    if len(ids) and (ids.min() < 0 or ids.max() > LARGEST):
        return _each(ids.tolist())
    return ids.astype(np.int32, copy=False)


def _each(value: object) -> TokenIds:
    return np.array(LISTS.validate_python(value), np.int32)


RequestTokenIds = Annotated[
    NDArray[np.int32],
    PlainValidator(_read, json_schema_input_type=list[TokenId]),
    PlainSerializer(lambda ids: ids.tolist(), when_used="json"),
]
"""The token ids of one prompt in a request: a list of them in JSON, a list or an array offline. (tokens,), int32"""

PromptTokenIds = Annotated[
    SkipValidation[Sequence[NDArray[np.int32]]],
    Field(exclude=True, description="Per prompt, int32, shape (tokens,); not sent over HTTP."),
    WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
]
"""The token ids of each prompt in a response, taken as they are."""
