"""Turns pydantic's validation errors into sentences for people: which field, what was wrong, what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import SkipJsonSchema

from poolkit.errors import PoolkitError, RequestError, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["FieldError", "field_errors", "nested_model", "refused", "validate"]

ModelT = TypeVar("ModelT", bound=BaseModel)

LONGEST_VALUE = 60

JSON_NAMES = {dict: "an object", list: "an array", type(None): "null"}

EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """A fault of one field.

    Attributes:
        path: keys and indices that lead to the field.
        problem: goes behind its name: "must be an integer, got 'x'".
    """

    path: tuple[str | int, ...]
    problem: str

    @property
    def field(self) -> str:
        """The field as one would write it: `input[3]`, `pooler_config.task`."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return "".join(steps).removeprefix(".")

    def __str__(self) -> str:
        """Return the sentence: field and problem."""
        return f"{self.field} {self.problem}" if self.path else self.problem


def validate(
    model: type[ModelT],
    fields: Mapping[str, object],
    *,
    error_type: type[PoolkitError],
    extra: Literal["ignore", "forbid"] | None = None,
    context: Mapping[str, object] | None = None,
) -> ModelT:
    """Return `fields` as a `model`, or raise `error_type` with a sentence per field that is wrong.

    `extra` says what becomes of unknown fields; by default the model's own word holds. `context` is for its validators.
    """
    try:
        return model.model_validate(fields, extra=extra, context=context)
    except ValidationError as error:
        found = field_errors(error, fields, model)
        sentences = (sentence if sentence.endswith("?") else f"{sentence}." for sentence in map(str, found))
        message = " ".join(sentences)
        if issubclass(error_type, RequestError):
            raise error_type(message, param=found[0].field or None) from error
        raise error_type(message) from error


def refused(error: ValidationError) -> RequestError:
    """Return what the caller is told where a plugin made a request of the caller's words and its model refused them."""
    failures = [(".".join(map(str, details["loc"])), details["msg"]) for details in error.errors()]
    message = "; ".join(f"{field}: {problem}" if field else problem for field, problem in failures)
    return RequestError(message, param=failures[0][0] or None)


def field_errors(error: ValidationError, data: object, model: type[BaseModel]) -> list[FieldError]:
    """Return what is wrong with each field of `data`, which `model` refused with `error`.

    The arms of a union each fail; only the failures of the arm that fits best are told. Beside a field that is missing,
    an unknown one of nearly its name is told, though the model may ignore those.
    """
    failures = _most_telling([_failure(details, data) for details in error.errors()])
    errors = [FieldError(failure.path, _problem(failure, model)) for failure in failures]
    told = {failure.path for failure in failures}
    for failure in failures:
        if failure.details["type"] == "missing":
            misspelled = [path for path in _misspelled(failure, model) if path not in told]
            errors += [FieldError(path, _unknown(path, model)) for path in misspelled]
    return errors


def nested_model(annotation: object) -> type[BaseModel] | None:
    """Return the pydantic model that a field holds, or None if it holds something else."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


@dataclass(frozen=True, slots=True)
class _Failure:
    """One of pydantic's errors.

    Attributes:
        steps: where it is, from here on: keys and indices, and between them the union arms that pydantic tried.
        path: the keys and indices from the top.
        expected: what would have been right, where a word says it.
        details: pydantic's own record.
    """

    steps: tuple[_Step, ...]
    path: tuple[str | int, ...]
    expected: tuple[str, ...]
    details: ErrorDetails


@dataclass(frozen=True, slots=True)
class _Step:
    name: str | int
    is_arm: bool


def _failure(details: ErrorDetails, data: object) -> _Failure:
    """Tell the steps of pydantic's location that lead through `data` from the names of union arms."""
    steps = []
    for name in details["loc"]:
        if (isinstance(name, int) and name < _length(data)) or (isinstance(data, dict) and name in data):
            data = data[name]  # type: ignore[index]  # one of the two tests above holds
            steps.append(_Step(name, is_arm=False))
        else:
            is_missing_key = details["type"] == "missing" and name == details["loc"][-1]
            steps.append(_Step(name, is_arm=not is_missing_key))
    path = tuple(step.name for step in steps if not step.is_arm)
    expected = EXPECTED.get(details["type"])
    return _Failure(tuple(steps), path, (expected,) if expected else (), details)


def _length(data: object) -> int:
    """Return the number of items of a list, a tuple or an array; 0 for anything else."""
    is_array = isinstance(data, list | tuple) or (hasattr(data, "dtype") and isinstance(data, Sized))
    return len(cast("Sized", data)) if is_array else 0


def _most_telling(failures: Sequence[_Failure]) -> list[_Failure]:
    """Return the failures field by field, and of each union those of the arm that fits best."""
    told = [failure for failure in failures if not failure.steps]
    arms = []
    by_step: dict[_Step, list[_Failure]] = {}
    for failure in failures:
        if failure.steps:
            by_step.setdefault(failure.steps[0], []).append(replace(failure, steps=failure.steps[1:]))
    for step, below in by_step.items():
        if step.is_arm:
            arms.append(_most_telling(below))
        else:
            told += _most_telling(below)
    return told + _best(arms) if arms else told


def _best(arms: Sequence[list[_Failure]]) -> list[_Failure]:
    def misfit(arm: list[_Failure]) -> tuple[int, int, int]:
        last = arm[0].path[-1] if arm[0].path else 0
        # The deeper an arm got the better it fits; then the fewer its failures; then the later its first one.
        return -max(len(failure.path) for failure in arm), len(arm), -last if isinstance(last, int) else 0

    least = min(misfit(arm) for arm in arms)
    fitting = [arm for arm in arms if misfit(arm) == least]
    firsts = [arm[0] for arm in fitting]
    if len({first.path for first in firsts}) == 1 and all(first.expected for first in firsts):
        expected = tuple(dict.fromkeys(word for first in firsts for word in first.expected))
        return [replace(firsts[0], expected=expected), *fitting[0][1:]]
    return fitting[0]


def _problem(failure: _Failure, model: type[BaseModel]) -> str:
    details = failure.details
    kind = details["type"]
    if failure.expected:
        *others, last = failure.expected
        expected = f"{', '.join(others)} or {last}" if others else last
        return f"must be {expected}, got {_shown(details['input'])}"
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return _unknown(failure.path, model)
    if kind in ("value_error", "assertion_error"):
        return str(details["ctx"]["error"]).rstrip(".")
    message = details["msg"]
    if message.startswith("Input should "):
        return f"must {message.removeprefix('Input should ')}, got {_shown(details['input'])}"
    return f"is not valid: {message}"


def _misspelled(missing: _Failure, model: type[BaseModel]) -> list[tuple[str | int, ...]]:
    """Return the paths of the unknown fields that may be meant for the one that is missing."""
    *outer, name = missing.path
    known = _known_fields(model, outer)
    given = missing.details["input"]
    names = [key for key in given if isinstance(key, str)] if isinstance(given, dict) else []
    return [(*outer, key) for key in names if key not in known and get_close_matches(key, known, n=1) == [name]]


def _unknown(path: Sequence[str | int], model: type[BaseModel]) -> str:
    known = _known_fields(model, path[:-1])
    listing = f" Known: {', '.join(known)}" if known else ""
    return f"is not known.{did_you_mean(str(path[-1]), known)}{listing}"


def _known_fields(model: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    for step in path:
        field = model.model_fields.get(str(step))
        nested = nested_model(field.annotation) if field else None
        if nested is None:
            return []
        model = nested
    hidden = SkipJsonSchema()  # type: ignore[type-arg]  # to type checkers it is a generic alias
    return [name for name, field in model.model_fields.items() if hidden not in field.metadata]


def _shown(value: object) -> str:
    if type(value) in JSON_NAMES:
        return JSON_NAMES[type(value)]
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
