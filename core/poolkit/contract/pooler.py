"""Poolers: from a batch's hidden states to each prompt's rows. A task's own head is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from pydantic import BaseModel

from poolkit.contract.encoder import PromptEncoder
from poolkit.contract.engine import Batch, States
from poolkit.contract.model_info import ModelInfo

if TYPE_CHECKING:
    import torch

__all__ = ["HeadContext", "HeadFactory", "PooledRows", "Pooler"]

ArrayT = TypeVar("ArrayT")


@dataclass(frozen=True, slots=True, eq=False)
class PooledRows(Generic[ArrayT]):
    """The rows of a batch's prompts, prompt after prompt.

    Attributes:
        rows: (rows, dim); where `indices` are given, the values that stand at them, (values,).
        lengths: how many rows, or values, each prompt has; None where each has one row, which it gets as a vector.
        indices: the columns of sparse rows' values. Every other column of such a prompt's one row is 0. (values,)
        parts: further outputs by name. They are neither cut to dimensions nor activated.
    """

    rows: ArrayT
    lengths: Sequence[int] | None = None
    indices: ArrayT | None = None
    parts: Mapping[str, PooledRows[ArrayT]] = field(default_factory=dict)


class Pooler(Protocol[ArrayT]):
    """Turns the hidden states of a batch into rows. May be called from several threads at a time.

    Torch tensors come under `torch.inference_mode`. Arithmetic should be in float32.
    """

    def __call__(self, states: States[ArrayT], batch: Batch, /) -> PooledRows[ArrayT]:
        """Return the rows of each prompt of the batch, in its order.

        Args:
            states: what the model gave, in its dtype. Borrowed: copy what is kept.
            batch: the prompts, with the parameters of each.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeadContext:
    """The arguments that a task's head is made with.

    Attributes:
        model: what the model's files say.
        settings: the task's own, validated.
        encoder: tokenizes prompts as the pipeline does.
        device: the torch device that the hidden states come on, as torch names it: where weights belong.
    """

    model: ModelInfo
    settings: BaseModel
    encoder: PromptEncoder
    device: str


class HeadFactory(Protocol):
    """The function that `PoolingTask.head` names.

    def create_head(context: HeadContext) -> Pooler[torch.Tensor]:
        weight = load_file(context.model.path / "colbert_linear.safetensors")["weight"].to(context.device)

        def project(states, batch):
            rows = normalize(linear(states.tokens.float(), weight), dim=-1)  # (tokens, dim)
            return PooledRows(rows, states.segments.sizes)

        return project
    """

    def __call__(self, context: HeadContext, /) -> Pooler[torch.Tensor]:
        """Return the head for one model, its weights on `context.device`. Called once, when the model is loaded.

        The head is given torch tensors, whatever the engine.
        """
        ...
