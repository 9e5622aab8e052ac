"""The layers between hidden states and vectors, row by row and in float32, their weights loaded from the model's files.

Where a model sends queries and documents through layers of their own, each layer takes the rows that are its own.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from poolkit.contract import DenseSpec, LayerNormSpec, LayerSpec, NormalizeSpec
from poolkit.engine.arrays import AnyArray, ArrayT, operations_of
from poolkit.errors import ModelError, PoolkitError

if TYPE_CHECKING:
    import torch

    from poolkit.contract import Batch, Segments

__all__ = ["Layers", "has_weights", "load_layers", "queries_of_tokens", "read_tensors"]

Step: TypeAlias = Callable[[Any], Any]

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ONLY_FOR = {"query": True, "document": False, None: None}


class Layers:
    """Some layers, one after the other."""

    def __init__(self, steps: Sequence[tuple[Step, bool | None]] = ()) -> None:
        self._steps = steps  # each with whether it is for queries (True), documents (False) or all (None)

    def __call__(self, rows: ArrayT, is_query: Callable[[], ArrayT]) -> ArrayT:
        """Return the rows after all layers. (rows, in) -> (rows, out), float32

        `is_query` gives whether each row is a query's, (rows,); it is asked only where that makes a difference.
        """
        operations = operations_of(rows)
        rows = operations.float32(rows)
        if all(only_for is None for _, only_for in self._steps):
            for step, _ in self._steps:
                rows = step(rows)
            return rows
        by_type = {True: rows, False: rows}
        for step, only_for in self._steps:
            for kind in (True, False) if only_for is None else (only_for,):
                by_type[kind] = step(by_type[kind])
        condition: AnyArray = is_query()
        return operations.where(condition[:, None], by_type[True], by_type[False])


def queries_of_tokens(tokens: ArrayT, segments: Segments, batch: Batch) -> ArrayT:
    """Return which tokens are a query's. (tokens,)"""
    operations = operations_of(tokens)
    is_query: AnyArray = operations.batch(batch, tokens).is_query
    of_tokens: ArrayT = is_query[operations.segments(segments, tokens).segment_ids]
    return of_tokens


def has_weights(specs: Sequence[LayerSpec]) -> bool:
    """Return whether any of the layers has weights, and so runs with torch alone."""
    return not all(isinstance(spec, NormalizeSpec) for spec in specs)


def load_layers(specs: Sequence[LayerSpec], *, device: str) -> Layers:
    """Load the weights of some layers.

    Raises ModelError where they are missing or have another shape than the layer's config says.
    """
    return Layers([(_load(spec, device), ONLY_FOR[spec.only_for]) for spec in specs])


def read_tensors(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return tensors of a folder's weights by name, in float32; -1 stands for any size.

    Raises ModelError where one is missing, or another one of the same layer is there.
    """
    layers = tuple({name.partition(".")[0] for name in shapes})
    found = {name: tensor for name, tensor in _open(folder).items() if name.partition(".")[0] in layers}
    given = {name: tuple(tensor.shape) for name, tensor in found.items()}
    fits = given.keys() == shapes.keys() and all(
        len(shape) == len(given[name]) and all(n in (-1, m) for n, m in zip(shape, given[name], strict=True))
        for name, shape in shapes.items()
    )
    if not fits:
        raise ModelError(f"The weights in {folder} are {given}; its config.json asks for {dict(shapes)}.")
    return {name: tensor.float() for name, tensor in found.items()}


def _load(spec: LayerSpec, device: str) -> Step:
    try:
        load = cast("Callable[..., Step]", pkgutil.resolve_name(spec.load))
        return load(spec, device=device)
    except PoolkitError:
        raise
    except Exception as exc:
        raise ModelError(
            f"The layer in {spec.folder} cannot be loaded by {spec.load!r}: {type(exc).__name__}: {exc}"
        ) from exc


def load_dense(spec: DenseSpec, *, device: str) -> Step:
    """Load a dense layer. Raises ModelError where its weights are missing or of another shape than its config says."""
    import torch
    from torch.nn.functional import linear

    shape = (spec.out_features, spec.in_features)
    has_matrix = spec.has_residual and spec.in_features != spec.out_features
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": shape}
    if spec.bias:
        shapes["linear.bias"] = shape[:1]
    if has_matrix:
        shapes["residual.weight"] = shape
    weights = {  # parameters, as those of any layer: an engine may run them
        name: torch.nn.Parameter(tensor.to(device), requires_grad=False)
        for name, tensor in read_tensors(spec.folder, shapes).items()
    }
    activation: torch.nn.Module = getattr(torch.nn, spec.activation)()

    def dense(rows: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = activation(linear(rows, weights["linear.weight"], weights.get("linear.bias")))
        if not spec.has_residual:
            return given
        return given + (linear(rows, weights["residual.weight"]) if has_matrix else rows)

    return dense


def load_layer_norm(spec: LayerNormSpec, *, device: str) -> Step:
    """Load a LayerNorm. Raises ModelError where its weights are missing or of another shape than its config says."""
    from torch.nn.functional import layer_norm

    names = ("norm.weight", "norm.bias")
    weights = read_tensors(spec.folder, dict.fromkeys(names, (spec.size,)))
    scale, shift = (weights[name].to(device) for name in names)
    return lambda rows: layer_norm(rows, (spec.size,), scale, shift)


def load_normalize(spec: NormalizeSpec, *, device: str) -> Step:  # noqa: ARG001 - there are no weights
    """Return what divides each row by its L2 norm."""
    return lambda rows: operations_of(rows).normalize(rows)


def _open(folder: Path) -> Mapping[str, torch.Tensor]:
    import torch
    from safetensors.torch import load_file

    if (folder / WEIGHTS[0]).is_file():
        return load_file(folder / WEIGHTS[0])  # maps the file: only what is used is read
    try:
        return dict(torch.load(folder / WEIGHTS[1], map_location="cpu", weights_only=True))
    except FileNotFoundError as exc:
        raise ModelError(f"{folder} has neither {' nor '.join(WEIGHTS)}. Fetch the model again.") from exc
