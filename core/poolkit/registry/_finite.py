"""Finds NaN and infinities in a response: JSON has no word for them, so a client would read null."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

__all__ = ["find_not_finite"]

EXACT = (str, bytes, int, bool, NoneType)
"""What no float is in."""


def find_not_finite(value: object) -> str | None:
    """Return the place of the first NaN or infinity (".results[3].score"), or None if there is none."""
    if isinstance(value, float):
        return None if isfinite(value) else ""
    if isinstance(value, BaseModel):
        for name in _inexact_fields(type(value)):
            if (place := find_not_finite(getattr(value, name))) is not None:
                return f".{name}{place}"
        return find_not_finite(value.__pydantic_extra__)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if (place := find_not_finite(item)) is not None:
                return f"[{key!r}]{place}"
    elif isinstance(value, list | tuple) and not _has_finite_sum(value):
        for index, item in enumerate(value):
            if (place := find_not_finite(item)) is not None:
                return f"[{index}]{place}"
    elif hasattr(value, "dtype"):
        import numpy as np  # here: listing plugins does not need it

        array = np.asarray(value)
        return "" if array.dtype.kind == "f" and not np.isfinite(array).all() else None
    return None


def _has_finite_sum(values: list[object] | tuple[object, ...]) -> bool:
    """Return True for a list of finite floats, in one pass without Python code for each."""
    if not values or type(values[0]) is not float:
        return False
    try:
        return isfinite(sum(values))  # type: ignore[arg-type]  # what is no number raises
    except TypeError:
        return False


@lru_cache(maxsize=256)
def _inexact_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the fields of a model that may hold a float, so that texts and token ids are not looked through."""
    return tuple(name for name, field in model.model_fields.items() if not _is_exact(field.annotation, (model,)))


def _is_exact(annotation: object, models: tuple[type[BaseModel], ...]) -> bool:
    if annotation in EXACT or get_origin(annotation) is Literal:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in models or annotation.model_config.get("extra") == "allow":
            return False
        fields = annotation.model_fields.values()
        return all(_is_exact(field.annotation, (*models, annotation)) for field in fields)
    arguments = [argument for argument in get_args(annotation) if argument is not ...]
    return bool(arguments) and all(_is_exact(argument, models) for argument in arguments)
