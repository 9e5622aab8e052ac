"""A task's own head: the pooler that `PoolingTask.head` names."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, cast

from poolkit.contract import PooledRows, States
from poolkit.errors import ModelError, PoolkitError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from poolkit.contract import Batch, HeadContext, HeadFactory, Pooler

__all__ = ["OnTorch", "create_head"]


def create_head(path: str, context: HeadContext, *, task: str) -> Pooler[torch.Tensor]:
    """Import what `PoolingTask.head` names and make the head for one model.

    Raises ModelError where it cannot be imported, or raises.
    """
    try:
        factory = cast("HeadFactory", pkgutil.resolve_name(path))
        return factory(context)
    except PoolkitError:
        raise
    except (Exception, SystemExit) as exc:
        raise ModelError(
            f"The head {path!r} of task {task!r} cannot be made for {context.model.name}: {type(exc).__name__}: {exc}"
        ) from exc


class OnTorch:
    """Gives a pooler torch tensors, whatever kind of arrays the engine's states are."""

    def __init__(self, pooler: Pooler[torch.Tensor]) -> None:
        self._pooler = pooler

    def __call__(
        self, states: States[torch.Tensor] | States[NDArray[np.generic]], batch: Batch, /
    ) -> PooledRows[torch.Tensor]:
        """Return the pooler's rows."""
        return self._pooler(
            States(
                None if states.tokens is None else _as_tensor(states.tokens),
                states.segments,
                None if states.rows is None else _as_tensor(states.rows),
                {layer: _as_tensor(tap) for layer, tap in states.taps.items()},
            ),
            batch,
        )


def _as_tensor(array: torch.Tensor | NDArray[np.generic]) -> torch.Tensor:
    import torch

    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
