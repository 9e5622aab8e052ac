"""Tokenized prompts, and what tokenizes them: the protocols that plugins and engines are given or bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from poolkit.contract.params import PoolingParams, ResolvedParams
from poolkit.contract.prompts import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from poolkit.errors import RequestError

__all__ = [
    "EncodedPrompt",
    "Encoding",
    "Group",
    "ModalityInput",
    "PairTemplate",
    "PromptEncoder",
    "TextToken",
    "TokenIds",
    "Tokenizer",
    "UnreadInput",
]

TokenIds: TypeAlias = "NDArray[np.int32]"
"""Token ids, or one number for each of them. (tokens,)"""

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


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """The tokens of a text with their offsets, without special tokens.

    Attributes:
        token_ids: in order.
        offsets: start and end of each token, in characters.
        word_ids: the word that each token belongs to, counted upwards. A word's tokens depend on that word and its two
            neighbours alone.
    """

    token_ids: TokenIds
    offsets: Sequence[tuple[int, int]]
    word_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens before, between and after the two texts of a pair.

    The first text's tokens have type 0, those of the second `second_type`.
    """

    before: Specials = ()
    between: Specials = ()
    after: Specials = ()
    second_type: int = 0

    @property
    def size(self) -> int:
        """The number of special tokens that a pair gets."""
        return len(self.before) + len(self.between) + len(self.after)

    def without_special_tokens(self) -> PairTemplate:
        """Return what joins two texts where the tokenizer is to add nothing."""
        return PairTemplate(second_type=self.second_type)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityInput:
    """A prompt of another modality than text, as the model reads it.

    Attributes:
        modality: its name.
        arrays: what the model's processor made of it, by the names of the model's own arguments. (1, …) each
        cost: what it counts for in the budget of a batch beside its tokens, in tokens: the number of an image's
            patches, or of a recording's frames.
    """

    modality: str
    arrays: Mapping[str, NDArray[np.generic]]
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class UnreadInput:
    """An input that is decoded only if it runs.

    Attributes:
        modality: its name.
        digest: of what it holds: equal inputs have the same.
        read: returns the prompt with the input read. Raises RequestError where it cannot be read.
    """

    modality: str
    digest: bytes
    read: Callable[[], EncodedPrompt]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Prompts of one request that run in one batch, and fail as one. Compared by identity."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """One prompt, tokenized: every id is in the vocabulary, and a text is never empty.

    Attributes:
        token_ids: the tokens that run through the model. (tokens,)
        params: how it is pooled.
        token_type_ids: which text of a pair each token belongs to; None if all are of type 0. (tokens,)
        is_query: True for a query, for models that read queries and documents differently.
        prompt_length: number of leading tokens that are left out of pooling.
        attention_length: number of leading tokens that the others attend to; those after them only get vectors of
            their own (a multi-vector model's query expansion). None for all.
        cuttable: start and end of the tokens that may be cut or split (the text; the second text of a pair); None if
            none may.
        index: its place among the prompts of its request, for messages.
        input: what the model reads of a prompt of another modality than text; the token ids are then the placeholders
            of its parts, if the model has any.
        unread: an input that has not been read yet: until it has, there are no token ids.
        text_tokens: the tokens with their offsets in the text, if the processor asked for them.
        group: the prompts that it runs with; None if it stands alone.
    """

    token_ids: TokenIds
    params: ResolvedParams
    token_type_ids: TokenIds | None = None
    is_query: bool = False
    prompt_length: int = 0
    attention_length: int | None = None
    cuttable: tuple[int, int] | None = None
    index: int = 0
    input: ModalityInput | None = None
    unread: UnreadInput | None = None
    text_tokens: Sequence[TextToken] = ()
    group: Group | None = None

    @property
    def cost(self) -> int:
        """The cost for the budget of a batch, in tokens."""
        return len(self.token_ids) + (self.input.cost if self.input is not None else 0)

    @property
    def modality(self) -> str:
        """The name of its modality."""
        return self.input.modality if self.input is not None else "text"


class Tokenizer(Protocol):
    """Turns texts into token ids. Called from many threads at a time."""

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[TokenIds]:
        """Return the token ids of each text, untruncated and unpadded."""
        ...

    @property
    def special_affixes(self) -> tuple[int, int]:
        """The numbers of special tokens before and after a text."""
        ...

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding] | None:
        """Return each text's tokens with their offsets, without special tokens; None if there are no offsets."""
        ...

    @property
    def pair_template(self) -> PairTemplate:
        """The special tokens around and between the two texts of a pair."""
        ...

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, as the vocabulary writes it; None if it has no such token."""
        ...

    def tokens(self, token_ids: Sequence[int] | TokenIds) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        ...

    def text_tokens(self, texts: Sequence[str], prompts: Sequence[str]) -> list[tuple[TokenIds, list[TextToken]]]:
        """Return the tokens of each text behind its prompt, without special tokens, with their offsets in the text."""
        ...

    def join(self, tokens: Sequence[str]) -> str:
        """Return what tokens, as the vocabulary writes them, read together."""
        ...


class PromptEncoder(Protocol):
    """Tokenizes prompts as the pipeline does after `pre_process`. Called from many threads at a time."""

    def resolve(self, params: PoolingParams) -> ResolvedParams:
        """Return the parameters with every default filled in.

        Raises RequestError where the task does not know one of them or needs one that is missing, or the model cannot
        honour it.
        """
        ...

    def encode(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[ResolvedParams],
        *,
        first_index: int = 0,
        refuses_long: bool = True,
        with_text_tokens: bool = False,
    ) -> list[EncodedPrompt | RequestError]:
        """Return each prompt tokenized, or the error that the caller should be told.

        Args:
            prompts: in any mix.
            params: one per prompt.
            first_index: the index of `prompts[0]` in its request, for the messages.
            refuses_long: refuse a prompt that is longer than the model's maximum, or cut it if the operator said so.
            with_text_tokens: return the tokens of texts with their offsets too.
        """
        ...

    def special_ids(self) -> tuple[TokenIds, TokenIds]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        ...

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, as the vocabulary writes it; None if it has no such token."""
        ...

    def tokens(self, token_ids: Sequence[int] | TokenIds) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        ...

    def shorten(self, text: str, *, tokens: int) -> str:
        """Return the start of a text that its first so many tokens hold, or all of it where it has no more.

        By itself that start may have other tokens at its end: what followed them is gone.
        """
        ...

    def join(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens, as the vocabulary writes them."""
        ...
