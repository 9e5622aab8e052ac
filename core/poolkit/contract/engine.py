"""The engine boundary: what an entry point in group `poolkit.engines` brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from poolkit.config import ModelConfig
from poolkit.contract.encoder import EncodedPrompt
from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.contract.outputs import PooledOutput
from poolkit.contract.task import PoolingTask

__all__ = ["Engine", "EngineProvider"]


class Engine(Protocol):
    """Runs a model. `forward` and `release` are called from one thread only."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """What was decided at start-up (path, dtype, device…) and why, for the start-up report."""
        ...

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[PooledOutput]:
        """Return the pooled, activated output of each prompt, in order.

        `late_interaction` may be ignored: the processor scores token vectors that come back.

        Raises whatever the forward pass raises: the scheduler finds the prompt that is to blame.
        Raises MemoryError when the batch does not fit: the scheduler tries smaller ones.
        """
        ...

    def release(self, keys: Sequence[str]) -> None:
        """Forget the queries cached under these keys; some of them may be gone already."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class EngineProvider(Protocol):
    """What an entry point in group `poolkit.engines` names, most simply a module with this function.

    It may also have `load_tokenizer(info, *, config) -> Tokenizer`, for a folder whose tokenizer transformers cannot
    load.
    """

    def load_engine(self, info: ModelInfo, *, task: PoolingTask, config: ModelConfig) -> Engine:
        """Load the weights of the model that `info` describes, with the head that `task.output` asks for."""
        ...
