"""Prompts of other modalities than text in a request: offline as they are, over HTTP as objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    PlainSerializer,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from poolkit.contract import ModalityPrompt
from poolkit.errors import RequestError

__all__ = [
    "TAKES_TEXTS",
    "ModalityObject",
    "OfModality",
    "TextOrModality",
    "TextsOrModalities",
    "is_of_modality",
    "prompt_schema",
    "request_context",
    "require_text",
]

MODALITIES = "modalities"
PAIR = frozenset({"first", "second"})


class ModalityObject(BaseModel):
    """A prompt of another modality than text: an object with the modality's name as a key, such as {"image": "…"}."""

    model_config = ConfigDict(extra="allow", frozen=True)


def request_context(prompts: Mapping[str, type[ModalityPrompt]]) -> Mapping[str, object]:
    """Return the context in which pydantic reads requests, given the type of each modality's prompts by its name."""
    return {MODALITIES: prompts}


def prompt_schema(prompt: type[ModalityPrompt]) -> dict[str, object]:
    """Return the JSON schema of a modality's prompts."""
    return _adapter(prompt).json_schema()


def is_of_modality(value: object) -> bool:
    """Return whether a value is meant to be a prompt of another modality than text."""
    is_object = isinstance(value, Mapping) and len(value) > 0 and PAIR.isdisjoint(value)
    return is_object or isinstance(value, ModalityPrompt)


def require_text(prompt: str | ModalityPrompt) -> str:
    """Return a text as it is. Raises RequestError for another prompt: for processors of models that read text alone."""
    if isinstance(prompt, ModalityPrompt):
        raise RequestError(
            f"The served model scores texts alone, and one of the inputs is of modality {prompt.modality!r}. "
            "Send texts."
        )
    return prompt


@cache
def _adapter(prompt: type[ModalityPrompt]) -> TypeAdapter[ModalityPrompt]:
    return TypeAdapter(prompt)


def _reader(*forms: str) -> Callable[[object, ValidationInfo], ModalityPrompt]:
    """Return what reads a prompt; `forms` says what else could stand in its place, for the message."""

    def read(value: object, info: ValidationInfo) -> ModalityPrompt:
        if isinstance(value, ModalityPrompt):
            return value
        assert isinstance(value, Mapping)
        known = cast("Mapping[str, type[ModalityPrompt]]", (info.context or {}).get(MODALITIES, {}))
        name = next((key for key in value if key in known), None)
        if name is None:
            key = next(map(str, value), None)
            found = f"an object with {key!r}" if key is not None else "an empty object"
            expected = [*forms, *(f"{{{name}}}" for name in known)]
            either = " or ".join(filter(None, (", ".join(expected[:-1]), expected[-1])))
            raise ValueError(f"must be {either}, got {found}")
        return _adapter(known[name]).validate_python(value)

    return read


def _write(prompt: ModalityPrompt) -> object:
    return _adapter(type(prompt)).dump_python(prompt, mode="json", by_alias=True)


OfModality = Annotated[
    ModalityPrompt,
    PlainValidator(
        _reader("a string", "an array of token ids", "a pair {first, second}"), json_schema_input_type=ModalityObject
    ),
    PlainSerializer(_write),
]
"""A prompt of a modality that is in the context of the request (`request_context`)."""


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    return "modality" if isinstance(value, ModalityPrompt | Mapping) else None


TextOrModality = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[
        ModalityPrompt,
        PlainValidator(_reader("a string"), json_schema_input_type=ModalityObject),
        PlainSerializer(_write),
        Tag("modality"),
    ],
    Discriminator(
        _kind,
        custom_error_type="text_or_modality",
        custom_error_message="Input should be a string or an object of another modality such as {image}",
    ),
]
"""A text or a prompt of another modality, for models that compare both."""


def _take_texts(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    return list(value) if isinstance(value, list) and set(map(type, value)) == {str} else validate(value)


TAKES_TEXTS = WrapValidator(_take_texts)
"""Takes a list of texts as it is, without Python code for each; other lists are validated item by item."""

TextsOrModalities = Annotated[list[TextOrModality], TAKES_TEXTS]
"""A list of texts, or of prompts of other modalities."""
