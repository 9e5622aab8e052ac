"""A task's own head: the pooler that `PoolingTask.head` names."""

from __future__ import annotations

import pkgutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from poolkit.contract import PooledRows, States
from poolkit.errors import ModelError, PoolkitError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from poolkit.contract import Batch, HeadContext, HeadFactory, Pooler
    from poolkit.engine.poolers.linear import MakeLinear

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
    """Runs a pooler on torch tensors, whatever kind of arrays the engine's states are, and gives rows of that kind.

    Args:
        pooler: takes torch tensors.
        linear: runs its linear layers in place of torch, where the engine brings that: see `Backbone`.
    """

    def __init__(self, pooler: Pooler[torch.Tensor], *, linear: MakeLinear | None = None) -> None:
        self.pooler = pooler
        self._linear_layers: AbstractContextManager[object] = nullcontext()
        if linear is not None:
            from poolkit.engine.poolers.linear import LinearLayers

            self._linear_layers = LinearLayers(linear)

    def __call__(
        self, states: States[torch.Tensor] | States[NDArray[np.generic]], batch: Batch, /
    ) -> PooledRows[torch.Tensor]:
        """Return the pooler's rows."""
        given = states.rows if states.tokens is None else states.tokens
        tensors = States(
            None if states.tokens is None else _as_tensor(states.tokens),
            states.segments,
            None if states.rows is None else _as_tensor(states.rows),
            {layer: _as_tensor(tap) for layer, tap in states.taps.items()},
        )
        with self._linear_layers:
            pooled = self.pooler(tensors, batch)
        return _as_numpy(pooled) if isinstance(given, np.ndarray) else pooled


def _as_numpy(pooled: PooledRows[torch.Tensor]) -> PooledRows[torch.Tensor]:
    """Return rows as numpy arrays, which go the same way: `finish` finds out for itself what it is given."""
    rows, indices = (None if tensor is None else tensor.float().numpy() for tensor in (pooled.rows, pooled.indices))
    parts = {name: _as_numpy(part) for name, part in pooled.parts.items()}
    return replace(pooled, rows=cast("torch.Tensor", rows), indices=cast("torch.Tensor", indices), parts=parts)


def _as_tensor(array: torch.Tensor | NDArray[np.generic]) -> torch.Tensor:
    import torch

    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
