"""Modalities: kinds of input beside text, which entry points in group `poolkit.modalities` name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from poolkit.contract.encoder import ModalityInput, TokenIds
from poolkit.contract.model_info import ModelInfo
from poolkit.contract.prompts import ModalityPrompt

__all__ = ["Modality", "ModalityReader"]

PromptT = TypeVar("PromptT", bound=ModalityPrompt)
PromptT_contra = TypeVar("PromptT_contra", bound=ModalityPrompt, contravariant=True)


class ModalityReader(Protocol[PromptT_contra]):
    """Turns prompts of a modality into what one model reads. Called from many threads at a time."""

    @property
    def query_frame(self) -> tuple[str, str] | None:
        """The strings before and after a text that prompts of this modality are searched with; None for none."""
        ...

    def read(self, prompt: PromptT_contra, /) -> tuple[TokenIds, ModalityInput]:
        """Return a prompt's placeholder tokens, none where the model has none, and what the model reads beside them.

        Raises RequestError where the prompt cannot be read: a sentence that goes on after "Prompt 3: ", without a full
        stop.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Modality(Generic[PromptT]):
    """A kind of input beside text. The name of its entry point is that of its prompts' modality.

    A model reads it where a `ModelFamily` of the model says so. Its engine finds the inputs in `Batch.inputs`.

    Attributes:
        prompt: the type of its prompts.
        load_reader: returns the reader for a model, once at start-up. Raises ModelError where there can be none.
    """

    prompt: type[PromptT]
    load_reader: Callable[[ModelInfo], ModalityReader[PromptT]]
