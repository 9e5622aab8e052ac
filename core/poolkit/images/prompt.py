"""An image as a prompt: offline the bytes of its file, over HTTP as base64."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer

from poolkit.contract import ModalityPrompt

__all__ = ["ImagePrompt"]

DATA_URI = "data:"


def _from_json(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a string: base64, or a data: URI that holds it")
    if value.startswith(("http://", "https://", "file:")):
        raise ValueError("must be the image itself, as base64 or a data: URI: poolkit fetches none")
    if value.startswith(DATA_URI):
        head, _, value = value.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("must be a data: URI that holds base64, data:image/png;base64,…")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as exc:
        raise ValueError("must be valid base64, or a data: URI that holds it") from exc


def _to_json(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True, slots=True)
class ImagePrompt(ModalityPrompt):
    """An image, for a model that reads images. In JSON it is an object {"image": "<base64, or a data: URI>"}.

    Attributes:
        data: what an image file holds: PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF.
    """

    modality: ClassVar[str] = "image"
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    data: Annotated[
        bytes,
        Field(alias="image", description="base64, or a data: URI that holds it."),
        BeforeValidator(_from_json, json_schema_input_type=str),
        PlainSerializer(_to_json),
    ] = field(repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the image in a file. Raises OSError where the file cannot be read."""
        return cls(Path(path).read_bytes())

    def digest(self) -> bytes:
        """Return a digest of the file's bytes."""
        return hashlib.blake2b(self.data, digest_size=32).digest()
