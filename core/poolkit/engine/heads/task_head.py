"""A task's own head: a function of the model's hidden states that `PoolingTask.head` names.

def create_head(info: ModelInfo, *, device: torch.device) -> Head:
    weight = load_file(info.path / "colbert_linear.safetensors")["weight"].to(device)

    def project(hidden, token_ids, segments):
        rows = normalize(linear(hidden.float(), weight), dim=-1)  # (tokens, dim)
        return [Pooled(part) for part in segments.split(rows)]

    return project
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from poolkit.errors import ModelError, PoolkitError

if TYPE_CHECKING:
    import torch

    from poolkit.contract import PoolingTask
    from poolkit.engine.passes.segments import Segments
    from poolkit.models import ModelInfo

__all__ = ["Head", "HeadFactory", "Pooled", "create_head"]


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a head made of one sequence; it becomes a `PooledOutput`.

    Attributes:
        data: (dim,), or (rows, dim) with as many rows as the head likes. All of a batch have the same `dim`. Cut to the
            requested dimensions and activated as the task says.
        parts: further outputs by name, of any shape. They are answered as they are.
    """

    data: torch.Tensor
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Head(Protocol):
    """Turns the hidden states of a batch into outputs. Called from one thread, under `torch.inference_mode`."""

    def __call__(self, hidden: torch.Tensor, token_ids: torch.Tensor, segments: Segments, /) -> Sequence[Pooled]:
        """Return one `Pooled` per segment, in the order of the segments. Arithmetic should be in float32.

        Args:
            hidden: the last hidden state of each token, in the model's dtype. (tokens, hidden)
            token_ids: (tokens,)
            segments: where each sequence lies.
        """
        ...


class HeadFactory(Protocol):
    """What `PoolingTask.head` names."""

    def __call__(self, info: ModelInfo, *, device: torch.device) -> Head:
        """Return the head for one model, its weights on `device`. Called once, when the model is loaded."""
        ...


def create_head(task: PoolingTask, path: str, info: ModelInfo, *, device: torch.device) -> Head:
    """Import what `task.head` names and make the head for one model.

    Raises ModelError where it cannot be imported, or raises.
    """
    try:
        factory = cast("HeadFactory", pkgutil.resolve_name(path))
        return factory(info, device=device)
    except PoolkitError:
        raise
    except (Exception, SystemExit) as exc:
        raise ModelError(
            f"The head {path!r} of task {task.name!r} cannot be made for {info.name}: {type(exc).__name__}: {exc}"
        ) from exc
