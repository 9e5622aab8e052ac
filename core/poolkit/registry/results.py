"""Check what the hooks of an operation return: prompts that can be run, and a response that JSON can say."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from types import NoneType
from typing import Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from poolkit.contract import ModalityPrompt, Operation, PoolingParams, Prepared, TemplatedText, TextPair, TokenInputs
from poolkit.errors import RequestError

__all__ = ["check_handed_on", "check_prepared", "check_response"]

ResultT = TypeVar("ResultT")

EXACT = (str, bytes, int, bool, NoneType)
"""Types of fields that hold no float."""


def check_prepared(prepared: object) -> Prepared:
    """Return what `pre_process` returned, or raise TypeError if it cannot be run."""
    prepared = _expect(Prepared, prepared)
    if isinstance(prepared.prompts, str | bytes | bytearray) or not isinstance(prepared.prompts, Sequence):
        raise TypeError(f"Prepared.prompts is a {type(prepared.prompts).__name__}, not a sequence of prompts")
    for index, prompt in enumerate(prepared.prompts):
        is_array = hasattr(prompt, "dtype")
        is_bytes = isinstance(prompt, bytes | bytearray)  # a sequence of integers, but of no token ids
        if not is_array and (
            is_bytes or not isinstance(prompt, str | TextPair | TemplatedText | ModalityPrompt | TokenInputs | Sequence)
        ):
            raise TypeError(f"Prepared.prompts[{index}] is a {type(prompt).__name__}, not a text, a pair or token ids")
    if not isinstance(prepared.params, PoolingParams):
        if not isinstance(prepared.params, Sequence):
            raise TypeError(
                f"Prepared.params is a {type(prepared.params).__name__}, not PoolingParams or a sequence of it"
            )
        if len(prepared.params) != len(prepared.prompts):
            raise TypeError(f"Prepared has {len(prepared.prompts)} prompts and {len(prepared.params)} params")
    _check_marks(prepared)
    return prepared


def _check_marks(prepared: Prepared) -> None:
    """Raise TypeError for groups, an origin or refusals that are not those of the prompts."""
    prompts = len(prepared.prompts)
    for name, given in (("groups", prepared.groups), ("origin", prepared.origin)):
        if given is not None and not isinstance(given, Sequence):
            raise TypeError(f"Prepared.{name} is a {type(given).__name__}, not a sequence")
        if given is not None and len(given) != prompts:
            raise TypeError(f"Prepared has {prompts} prompts and {len(given)} {name}")
    for index, error in prepared.refused.items():
        if index not in range(prompts):
            raise TypeError(f"Prepared.refused has the index {index!r}, but there are {prompts} prompts")
        if not isinstance(error, RequestError):
            raise TypeError(f"Prepared.refused[{index}] is a {type(error).__name__}, not a RequestError")
    if prepared.groups is None:
        return
    for index, (group, params) in enumerate(zip(prepared.groups, prepared.params_of_each, strict=True)):
        if not isinstance(group, Hashable):
            raise TypeError(f"Prepared.groups[{index}] is a {type(group).__name__}, which cannot be hashed")
        if group is not None and params.late_interaction is not None:
            raise TypeError(f"Prepared.groups[{index}] names a group for a prompt of late interaction, which has none")


def check_handed_on(prepared: Prepared, inner: object) -> Prepared:
    """Return what a wrapper of `pre_process` returned, or raise TypeError if it cannot be answered any more."""
    if not isinstance(inner, Prepared):
        raise TypeError("returned prompts although what it surrounds failed")
    if prepared.state is not inner.state:
        raise TypeError("lost Prepared.state, which is the processor's. Return dataclasses.replace(prepared, …)")
    if len(prepared.prompts) != len(inner.prompts):
        raise TypeError(
            f"returned {len(prepared.prompts)} prompts for {len(inner.prompts)}. Prompts are added and left out in run"
        )
    return prepared


def check_response(response: object, operation: Operation, *, prompts: int | None = None) -> BaseModel:
    """Return what `post_process` returned, or raise for another type, NaN, an infinity or too few or many items.

    JSON has no word for NaN: the client would read null.

    Args:
        response: what was returned.
        operation: says what a response is.
        prompts: the number of items of each field in `per_prompt`; None for a wrapper's response, which may differ.
    """
    response = _expect(operation.response, response)
    place = _find_not_finite(response)
    if place is not None:
        raise ValueError(f"returned a response whose {place.lstrip('.')} is not finite")
    for name in operation.per_prompt if prompts is not None else ():
        items = getattr(response, name)
        if len(items) != prompts:
            raise TypeError(f"returned {len(items)} {name} for {prompts} prompts")
    return response


def _expect(expected: type[ResultT], value: object) -> ResultT:
    if not isinstance(value, expected):
        raise TypeError(f"returned {type(value).__name__}, not {expected.__name__}")
    return value


def _find_not_finite(value: object) -> str | None:
    """Return the place of the first NaN or infinity (".results[3].score"), or None if there is none."""
    if isinstance(value, float):
        return None if isfinite(value) else ""
    if isinstance(value, BaseModel):
        for name in _inexact_fields(type(value)):
            if (place := _find_not_finite(getattr(value, name))) is not None:
                return f".{name}{place}"
        return _find_not_finite(value.__pydantic_extra__)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if (place := _find_not_finite(item)) is not None:
                return f"[{key!r}]{place}"
    elif isinstance(value, list | tuple) and not (_has_finite_sum(value) or _has_finite_columns(value)):
        for index, item in enumerate(value):
            if (place := _find_not_finite(item)) is not None:
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


def _has_finite_columns(values: list[object] | tuple[object, ...]) -> bool:
    """Return True for models of one type whose fields that may hold floats all hold finite ones."""
    kind = type(values[0]) if values else None
    if kind is None or not issubclass(kind, BaseModel) or kind.model_config.get("extra") == "allow":
        return False
    if set(map(type, values)) != {kind}:
        return False
    return all(_has_finite_sum([getattr(value, name) for value in values]) for name in _inexact_fields(kind))


@lru_cache(maxsize=256)
def _inexact_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the fields of a model that may hold a float and are sent, so that texts and token ids are left alone."""
    fields = model.model_fields.items()
    return tuple(name for name, field in fields if not field.exclude and not _is_exact(field.annotation, (model,)))


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
