"""Runs the linear layers of a head by the engine: a row's bits then do not depend on the other rows of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
    MakeLinear: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32] | None], Run]

__all__ = ["LinearLayers"]


class LinearLayers(TorchFunctionMode):
    """Within `with`, what torch would multiply by a layer's weights is run by the engine.

    That is so in whatever way a head calls them; products with anything but a `Parameter` stay torch's, as do those in
    other dtypes than float32. May be entered by several threads at a time.

    Args:
        make: gives what runs a layer with such weights.
    """

    def __init__(self, make: MakeLinear) -> None:
        super().__init__()
        self._make = make
        self._layers: dict[int, tuple[torch.nn.Parameter, Run]] = {}  # by the weight's identity

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run a function of torch."""
        if func is not linear:
            return func(*args, **(kwargs or {}))
        return self._run(*args, **(kwargs or {}))

    def _run(self, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if not isinstance(weight, torch.nn.Parameter) or {rows.dtype, weight.dtype} != {torch.float32}:
            return linear(rows, weight, bias)
        run = self._find(weight, bias)
        flat = rows.reshape(-1, rows.shape[-1]).contiguous()  # (rows, inputs)
        return torch.from_numpy(run(flat.numpy())).reshape(*rows.shape[:-1], len(weight))

    def _find(self, weight: torch.nn.Parameter, bias: torch.Tensor | None) -> Run:
        found = self._layers.get(id(weight))
        if found is None:
            arrays = (tensor.detach().contiguous().numpy() for tensor in (weight, bias) if tensor is not None)
            matrix, shift = next(arrays), next(arrays, None)
            found = self._layers.setdefault(id(weight), (weight, self._make(matrix, shift)))
        return found[1]
