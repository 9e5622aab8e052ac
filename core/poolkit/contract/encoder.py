"""Tokenized prompts, and what tokenizes them: the protocols that plugins and engines are given or bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from poolkit.contract.params import PoolingParams
from poolkit.contract.prompts import Prompt, TextPair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from poolkit.errors import RequestError

__all__ = [
    "EncodedPrompt",
    "Encoding",
    "ImageInput",
    "PairTemplate",
    "PromptEncoder",
    "TextToken",
    "Tokenizer",
]

Specials: TypeAlias = tuple[tuple[int, int], ...]
"""Token ids, each with its token type."""


@dataclass(frozen=True, slots=True)
class TextToken:
    """One token of a text.

    Attributes:
        token: as the vocabulary writes it; the text itself where the vocabulary has no token for it.
        start: its first character in the text; None where the tokenizer does not say.
        end: one past its last character.
        is_special: True for a special token, and for a token of the prompt before the text, as far as the tokenizer
            tells.
        is_subword: True if it continues the word of the token before it. If the vocabulary does not mark such tokens,
            this is guessed from the spaces.
    """

    token: str
    start: int | None
    end: int | None
    is_special: bool = False
    is_subword: bool = False


@dataclass(frozen=True, slots=True)
class Encoding:
    """The tokens of a text with their offsets, without special tokens.

    Attributes:
        token_ids: in order.
        offsets: start and end of each token, in characters.
        word_ids: the word that each token belongs to, counted upwards. A word's tokens depend on that word and its two
            neighbours alone.
    """

    token_ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    word_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """What a tokenizer puts before, between and after the two texts of a pair.

    The first text's tokens have type 0, those of the second `second_type`.
    """

    before: Specials = ()
    between: Specials = ()
    after: Specials = ()
    second_type: int = 0

    @property
    def size(self) -> int:
        """How many special tokens a pair gets."""
        return len(self.before) + len(self.between) + len(self.after)

    def without_special_tokens(self) -> PairTemplate:
        """Return what joins two texts where the tokenizer is to add nothing."""
        return PairTemplate(second_type=self.second_type)

    def join(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """Return the token ids of a pair and their types; None where all types are 0."""
        tokens = [
            *self.before,
            *((token_id, 0) for token_id in first),
            *self.between,
            *((token_id, self.second_type) for token_id in second),
            *self.after,
        ]
        types = [kind for _, kind in tokens]
        return [token_id for token_id, _ in tokens], types if any(types) else None


@dataclass(frozen=True, slots=True, eq=False)
class ImageInput:
    """An image as the model reads it.

    Attributes:
        arrays: what the model's image processor made of it, by the names of the model's own arguments. (1, …) each
        patches: how many patches the model cuts it into, at most: what it costs, beside its tokens.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    patches: int


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One prompt, tokenized: every id inside the vocabulary, no longer than the model's maximum, a text never empty.

    Attributes:
        token_ids: what runs through the model.
        params: how it is pooled.
        token_type_ids: which text of a pair each token belongs to; None where all are of type 0.
        is_query: whether it is a query, for models that tell queries and documents apart.
        prompt_length: how many tokens at the start are left out of pooling.
        attended: how many of the first tokens are seen by the others: those after them are only there for vectors of
            their own (a multi-vector model's query expansion). None where all are.
        image: the image, where the prompt is one; the token ids are then those that stand for its parts, if the model
            has such.
    """

    token_ids: Sequence[int]
    params: PoolingParams
    token_type_ids: Sequence[int] | None = None
    is_query: bool = False
    prompt_length: int = 0
    attended: int | None = None
    image: ImageInput | None = None

    @property
    def cost(self) -> int:
        """What counts towards the budget of a batch: tokens, and an image's patches."""
        return len(self.token_ids) + (self.image.patches if self.image is not None else 0)


class Tokenizer(Protocol):
    """Turns texts into token ids. Called from many threads at a time."""

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the token ids of each text, untruncated and unpadded."""
        ...

    @property
    def special_affixes(self) -> tuple[int, int]:
        """How many special tokens are put before and after a text."""
        ...

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding] | None:
        """Return each text's tokens with their offsets, without special tokens; None if there are no offsets."""
        ...

    @property
    def pair_template(self) -> PairTemplate:
        """What is put around and between the two texts of a pair."""
        ...

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        ...

    def text_tokens(self, text: str, *, prompt: str = "") -> list[TextToken]:
        """Return the tokens of a text behind a prompt, without special tokens, with their characters in the text."""
        ...

    def join(self, tokens: Sequence[str]) -> str:
        """Return what tokens, as the vocabulary writes them, read together."""
        ...


class PromptEncoder(Protocol):
    """Tokenizes prompts as the pipeline does after `pre_process`. Called from many threads at a time."""

    def encode(
        self, prompts: Sequence[Prompt], params: Sequence[PoolingParams], *, first_index: int, refuses_long: bool = True
    ) -> list[EncodedPrompt | RequestError]:
        """Return each prompt tokenized, or the error that the caller should be told.

        Args:
            prompts: what the caller sent.
            params: one per prompt.
            first_index: the index of `prompts[0]` in its request, for the messages.
            refuses_long: refuse a prompt that is longer than the model's maximum.
        """
        ...

    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        ...

    def halves(self, pair: TextPair, params: PoolingParams) -> tuple[Sequence[int], Sequence[int]]:
        """Return the token ids of the two texts of a pair, without special tokens.

        Each is as long as `params` let it be by itself, however long the pair becomes.

        Raises RequestError where a text is not valid Unicode.
        """
        ...

    def pair_template(self, params: PoolingParams) -> PairTemplate:
        """Return what is put around and between the two texts of a pair."""
        ...

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        ...

    def text_tokens(self, text: str, params: PoolingParams) -> list[TextToken]:
        """Return the tokens of a text that `encode` gives the ids of, with their characters in the text."""
        ...

    def shorten(self, text: str, *, tokens: int) -> str:
        """Return the start of a text that has so many tokens, or all of it where it has no more."""
        ...

    def join(self, tokens: Sequence[str]) -> str:
        """Return what tokens, as the vocabulary writes them, read together."""
        ...
