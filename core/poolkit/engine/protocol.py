"""The whole boundary between poolkit and what runs a model: one tokenizer, one flat batch, one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from poolkit.contract import PooledOutput, PoolingParams, PoolingTask, TextPair
from poolkit.engine.pairs import PairTemplate

if TYPE_CHECKING:
    from poolkit.config import ModelConfig
    from poolkit.models import Decision, ModelInfo

__all__ = ["EncodedPrompt", "Engine", "EngineProvider", "Tokenizer"]


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One prompt, tokenized: never empty, every id inside the vocabulary, no longer than the model's maximum.

    `token_type_ids` says which text of a pair each token belongs to; None where all are of type 0.
    """

    token_ids: Sequence[int]
    params: PoolingParams
    token_type_ids: Sequence[int] | None = None


class Tokenizer(Protocol):
    """Turns texts into token ids. Called from many threads at a time."""

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the token ids of each text, untruncated and unpadded."""
        ...

    @property
    def special_affixes(self) -> tuple[int, int]:
        """How many special tokens are put before and after a text."""
        ...

    def encode_pairs(self, pairs: Sequence[TextPair]) -> list[tuple[list[int], list[int]]]:
        """Return the token ids of the two texts of each pair, untruncated and without special tokens."""
        ...

    @property
    def pair_template(self) -> PairTemplate:
        """What is put around and between the two texts of a pair."""
        ...

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same."""
        ...


class Engine(Protocol):
    """Runs a model. `forward` is called from one thread only."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """What was decided at start-up (path, dtype, device…) and why, for the start-up report."""
        ...

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[PooledOutput]:
        """Return the pooled, activated output of each prompt, in order.

        Raises whatever the forward pass raises: the scheduler finds the prompt that is to blame.
        Raises MemoryError when the batch does not fit: the scheduler tries smaller ones.
        """
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
