"""The whole boundary between poolkit and what runs a model: one tokenizer, one flat batch, one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from poolkit.contract import PooledOutput, PoolingParams, PoolingTask
from poolkit.engine.text.located import LocatedTokens
from poolkit.engine.text.pairs import PairTemplate
from poolkit.engine.text.text_tokens import TextToken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from poolkit.config import ModelConfig
    from poolkit.models import Decision, ModelInfo

__all__ = ["EncodedPrompt", "Engine", "EngineProvider", "ImageInput", "Tokenizer"]


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
        unpooled: how many tokens at the start are left out of pooling.
        attended: how many of the first tokens are seen by the others: those after them are only there for vectors of
            their own (a multi-vector model's query expansion). None where all are.
        image: the image, where the prompt is one; the token ids are then those that stand for its parts, if the model
            has such.
    """

    token_ids: Sequence[int]
    params: PoolingParams
    token_type_ids: Sequence[int] | None = None
    is_query: bool = False
    unpooled: int = 0
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

    def locate(self, texts: Sequence[str]) -> list[LocatedTokens] | None:
        """Return the token ids of each text without special tokens and where they lie; None where it cannot tell."""
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


class Engine(Protocol):
    """Runs a model. `forward` and `release` are called from one thread only."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """What was decided at start-up (path, dtype, device…) and why, for the start-up report."""
        ...

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[PooledOutput]:
        """Return the pooled, activated output of each prompt, in order.

        A prompt whose parameters ask for late interaction may be answered as if they did not (see `ScoreDocument`).

        Raises whatever the forward pass raises: the scheduler finds the prompt that is to blame.
        Raises MemoryError when the batch does not fit: the scheduler tries smaller ones.
        """
        ...

    def release(self, keys: Sequence[str]) -> None:
        """Forget the queries that are kept under these keys (`KeepQuery`); some of them may be gone already."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class EngineProvider(Protocol):
    """What an entry point in group `poolkit.engines` names: most simply a module with these two functions."""

    def load_tokenizer(self, info: ModelInfo, *, config: ModelConfig) -> Tokenizer:
        """Load the tokenizer of the model that `info` describes: it is wanted before the weights are."""
        ...

    def load_engine(self, info: ModelInfo, *, task: PoolingTask, config: ModelConfig) -> Engine:
        """Load the weights of the model that `info` describes, with the head that `task.output` asks for."""
        ...
