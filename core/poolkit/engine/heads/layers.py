"""The layers between hidden states and vectors, row by row and in float32, their weights loaded from the model's files.

Where a model sends queries and documents through layers of their own, each layer takes the rows that are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn.functional import layer_norm, linear, normalize

from poolkit.errors import ModelError
from poolkit.models import DenseSpec, LayerMixSpec, LayerNormSpec, LayerSpec

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutput

__all__ = ["Layers", "TakeHidden", "last_hidden_state", "load_layers", "load_mix"]

Step: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
TakeHidden: TypeAlias = Callable[["BaseModelOutput"], torch.Tensor]
"""Takes the token vectors out of what a base gives. (1 or rows, tokens, hidden)"""

LAYER_WEIGHTS = "layer_weights"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Layers:
    """Some layers, one after the other."""

    def __init__(self, steps: Sequence[tuple[Step, bool | None]]) -> None:
        self._steps = steps  # each with whether it is for queries (True), documents (False) or all (None)

    def __call__(self, rows: torch.Tensor, is_query: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the rows after all layers. (rows, in) -> (rows, out), float32

        `is_query` gives whether each row is a query's, (rows,); it is asked only where that makes a difference.
        """
        rows = rows.float()
        by_type = {True: rows, False: rows}
        if all(only_for is None for _, only_for in self._steps):
            for step, _ in self._steps:
                rows = step(rows)
            return rows
        for step, only_for in self._steps:
            for kind in (True, False) if only_for is None else (only_for,):
                by_type[kind] = step(by_type[kind])
        return torch.where(is_query()[:, None], by_type[True], by_type[False])


def load_layers(specs: Sequence[LayerSpec], *, device: torch.device) -> Layers:
    """Load the weights of some layers.

    Raises ModelError where they are missing or have another shape than the layer's config says.
    """
    sides = {"query": True, "document": False, None: None}
    return Layers([(_load(spec, device), sides[spec.only_for]) for spec in specs])


def load_mix(spec: LayerMixSpec | None, *, device: torch.device) -> TakeHidden:
    """Return how token vectors are taken from a base: its last layer, or a weighted mean of several.

    Raises ModelError where the weights are missing.
    """
    if spec is None:
        return last_hidden_state
    weights = _read_tensors(spec.folder, {LAYER_WEIGHTS: (-1,)})[LAYER_WEIGHTS].to(device)
    shares = weights / weights.sum()  # (layers,)

    def mix(output: BaseModelOutput) -> torch.Tensor:
        layers = output.hidden_states
        if layers is None or len(layers) - spec.first != len(shares):
            raise ModelError(
                f"The weights in {spec.folder} are for {len(shares)} layers, but the base gives "
                f"{len(layers or ()) - spec.first} from layer {spec.first} on."
            )
        return torch.einsum("l...,l->...", torch.stack(layers[spec.first :]).float(), shares)

    return mix


def last_hidden_state(output: BaseModelOutput) -> torch.Tensor:
    """Return what the last layer gives."""
    assert output.last_hidden_state is not None
    return output.last_hidden_state


def _load(spec: LayerSpec, device: torch.device) -> Step:
    if isinstance(spec, DenseSpec):
        return _load_dense(spec, device)
    if isinstance(spec, LayerNormSpec):
        return _load_layer_norm(spec, device)
    return lambda rows: normalize(rows, dim=-1)


def _load_dense(spec: DenseSpec, device: torch.device) -> Step:
    shape = (spec.out_features, spec.in_features)
    has_matrix = spec.has_residual and spec.in_features != spec.out_features
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": shape}
    if spec.bias:
        shapes["linear.bias"] = shape[:1]
    if has_matrix:
        shapes["residual.weight"] = shape
    weights = {name: tensor.to(device) for name, tensor in _read_tensors(spec.folder, shapes).items()}
    activation: torch.nn.Module = getattr(torch.nn, spec.activation)()

    def dense(rows: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = activation(linear(rows, weights["linear.weight"], weights.get("linear.bias")))
        if not spec.has_residual:
            return given
        return given + (linear(rows, weights["residual.weight"]) if has_matrix else rows)

    return dense


def _load_layer_norm(spec: LayerNormSpec, device: torch.device) -> Step:
    names = ("norm.weight", "norm.bias")
    weights = _read_tensors(spec.folder, dict.fromkeys(names, (spec.size,)))
    scale, shift = (weights[name].to(device) for name in names)
    return lambda rows: layer_norm(rows, (spec.size,), scale, shift)


def _read_tensors(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
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


def _open(folder: Path) -> Mapping[str, torch.Tensor]:
    from safetensors.torch import load_file

    if (folder / WEIGHTS[0]).is_file():
        return load_file(folder / WEIGHTS[0])  # maps the file: only what is used is read
    try:
        return dict(torch.load(folder / WEIGHTS[1], map_location="cpu", weights_only=True))
    except FileNotFoundError as exc:
        raise ModelError(f"{folder} has neither {' nor '.join(WEIGHTS)}. Fetch the model again.") from exc
