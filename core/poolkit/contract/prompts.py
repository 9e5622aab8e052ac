"""Prompts: the inputs that a model can be given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ModalityPrompt", "Prompt", "TemplatedText", "TextPair", "TokenInputs"]


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


class ModalityPrompt(ABC):
    """A prompt of another modality than text, such as an `ImagePrompt`. Subclasses are frozen dataclasses.

    A subclass is also its own form in requests: pydantic reads it from a JSON object and writes it, by its annotations.
    The object has the name of the modality as a key.

        @dataclass(frozen=True)
        class AudioPrompt(ModalityPrompt):
            modality: ClassVar[str] = "audio"
            audio: pydantic.Base64Bytes

    Attributes:
        modality: the name of its entry in group `poolkit.modalities`.
    """

    __slots__ = ()

    modality: ClassVar[str]

    @abstractmethod
    def digest(self) -> bytes:
        """Return a digest of what the model reads of it: equal prompts have the same."""


Prompt: TypeAlias = "str | TextPair | TemplatedText | ModalityPrompt | TokenInputs | Sequence[int] | NDArray[np.int32]"
"""One input to the model: a text, a pair of texts, a text in its frame, the token ids of any of these, or a prompt of
another modality.
"""
