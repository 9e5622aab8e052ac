"""An image in a request: offline as it is, over HTTP as base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, PlainSerializer, PlainValidator, Tag

from poolkit.contract import ImagePrompt
from poolkit.errors import RequestError

__all__ = ["Image", "TextOrImage", "is_image", "require_text"]

DATA_URI = "data:"


class ImageObject(BaseModel):
    """An image in JSON: base64, or a data: URI that holds base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str


def is_image(value: object) -> bool:
    """Return whether a value is meant to be an image."""
    return isinstance(value, ImagePrompt) or (isinstance(value, Mapping) and "image" in value)


def require_text(prompt: str | ImagePrompt) -> str:
    """Return a text as it is. Raises RequestError for an image: for processors of models that read texts alone."""
    if isinstance(prompt, ImagePrompt):
        raise RequestError("The served model scores texts alone, and one of the inputs is an image. Send texts.")
    return prompt


def _read(value: object) -> ImagePrompt:
    if isinstance(value, ImagePrompt):
        return value
    if not isinstance(value, Mapping) or list(value) != ["image"] or not isinstance(value["image"], str):
        raise ValueError('must be an image {"image": "<base64, or a data: URI>"}')
    text = value["image"]
    if text.startswith(("http://", "https://", "file:")):
        raise ValueError("must be the image itself, as base64 or a data: URI: poolkit fetches none")
    if text.startswith(DATA_URI):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("must be a data: URI that holds base64, data:image/png;base64,…")
    try:
        return ImagePrompt(base64.b64decode(text, validate=True))
    except binascii.Error as exc:
        raise ValueError("must be valid base64, or a data: URI that holds it") from exc


def _write(image: ImagePrompt) -> dict[str, str]:
    return {"image": base64.b64encode(image.data).decode()}


Image = Annotated[ImagePrompt, PlainValidator(_read, json_schema_input_type=ImageObject), PlainSerializer(_write)]
"""An `ImagePrompt`, which in JSON is an object {"image": "<base64, or a data: URI>"}."""


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    return "image" if is_image(value) else None


TextOrImage = Annotated[
    Annotated[str, Tag("text")] | Annotated[Image, Tag("image")],
    Discriminator(
        _kind,
        custom_error_type="text_or_image",
        custom_error_message="Input should be a string or an image {image}",
    ),
]
"""A text or an image, for models that compare both."""
