"""Prompts: the inputs that a model can be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ImagePrompt", "Prompt", "TemplatedText", "TextPair", "TokenInputs"]


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that the model reads together, with its own special tokens around and between them."""

    first: str
    second: str


@dataclass(frozen=True, slots=True)
class TokenInputs:
    """Token ids with token type ids.

    Attributes:
        token_ids: special tokens included.
        token_type_ids: one for each token id: 0 for the first text of a pair, 1 for the second, as the tokenizer
            numbers them. None if all are 0.
        prompt_length: number of leading tokens that belong to one of the model's own prompts and are left out of
            pooling.
    """

    token_ids: Sequence[int] | NDArray[np.int32]
    token_type_ids: Sequence[int] | NDArray[np.int32] | None = None
    prompt_length: int = 0


@dataclass(frozen=True, slots=True)
class TemplatedText:
    """A text with a fixed prefix and suffix. All three are tokenized as one string; only the text is truncated.

    Neither a prompt of the model's own nor special tokens are added: prefix and suffix hold everything else that the
    model reads.
    """

    prefix: str
    text: str
    suffix: str


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An image, for a model that reads images.

    Attributes:
        data: what an image file holds: PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF.
    """

    data: bytes = field(repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the image in a file. Raises OSError where the file cannot be read."""
        return cls(Path(path).read_bytes())


Prompt: TypeAlias = "str | TextPair | TemplatedText | ImagePrompt | TokenInputs | Sequence[int] | NDArray[np.int32]"
"""One input to the model: a text, a pair of texts, a text in its frame, the token ids of any of these, or an image."""
