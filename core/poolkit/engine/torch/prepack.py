"""Linear layers whose weights are laid out for oneDNN once, where torch's own are laid out at every call.

Layers that multiply the same input become one product, and an activation is computed with the product before it. Which
layers these are is not told by the kind of the model: one batch is run and watched. What that cannot show (an output
that is also used without the activation) the self-check sees in the numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

import torch
from torch.nn import Identity, Linear, Module, functional

__all__ = ["prepack"]

CAPABILITIES = frozenset(("AVX2", "AVX512"))
"""Processors that gain from it."""

PARTS = "_poolkit_parts"
"""The attribute of an input where the parts of its product wait for the layers that they belong to."""

LEAST_ROWS = 2
"""A layer that is given one row, as BERT's pooler is, stays torch's: for one row oneDNN wants another layout."""

CLOSE = 1e-5
"""oneDNN's activations are within 1e-6 of torch's; the two kinds of GELU differ by 5e-4."""


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation that oneDNN computes with the product before it.

    Attributes:
        name: oneDNN's, as torch's operator takes it.
        algorithm: which one of those of that name.
        reference: torch's own.
    """

    name: str
    algorithm: str
    reference: Callable[[torch.Tensor], torch.Tensor]


NONE = Activation("none", "", lambda states: states)
ACTIVATIONS = (
    Activation("gelu", "none", functional.gelu),
    Activation("gelu", "tanh", partial(functional.gelu, approximate="tanh")),
    Activation("relu", "", functional.relu),
    Activation("swish", "", functional.silu),
    Activation("tanh", "", torch.tanh),
)


def prepack(model: Module, run: Callable[[], object]) -> Callable[[], None] | None:
    """Replace the linear layers of a model, in place. Their weights are then held in the new layout alone.

    Args:
        model: on any device.
        run: runs a batch through it.

    Returns what puts torch's layers back; None where nothing was replaced, since device and dtype do not gain.
    """
    if not any(_is_packable(module) for module in model.modules()):
        return None
    groups, activations = _watch(model, run)
    if not groups:
        return None
    slots = _slots(model)
    replaced: list[tuple[Module, str, Callable[[], Module]]] = []

    def replace(module: Module, replacement: Module, restore: Callable[[], Module]) -> None:
        for parent, name in slots.pop(module):
            setattr(parent, name, replacement)
            replaced.append((parent, name, restore))

    def put_back() -> None:
        for parent, name, restore in replaced:
            setattr(parent, name, restore())

    try:
        while groups:  # each weight is given back as soon as it is packed
            group = groups.pop()
            follower, activation = activations.pop(group[0], (None, NONE))
            product = Product(group, activation)
            for place in range(len(group)):
                replace(group[place], PackedLinear(product, place), partial(product.unpack, place))
            if follower is not None:
                replace(follower, Identity(), partial(_itself, follower))
    except BaseException:
        put_back()
        raise
    _leave_file(model)
    return put_back


class Product:
    """The product of one input with the weights of one or more linear layers, with an activation. Thread safe."""

    def __init__(self, layers: Sequence[Linear], activation: Activation) -> None:
        weight = torch.cat([layer.weight for layer in layers])  # (outputs, inputs)
        self.sizes = [layer.out_features for layer in layers]
        self.inputs = weight.shape[1]
        self._has_bias = [layer.bias is not None for layer in layers]
        self._activation = activation
        self._weight = torch.ops.mkldnn._reorder_linear_weight.default(weight)
        self._bias = None
        if any(self._has_bias):
            self._bias = torch.cat(
                [weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers]
            )

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Return (…, inputs) times the weights. (…, outputs)"""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(
            states, self._weight, self._bias, self._activation.name, [], self._activation.algorithm
        )
        return product

    def unpack(self, place: int) -> Linear:
        """Return one of the layers, with the same bits as it had."""
        start = sum(self.sizes[:place])
        rows = slice(start, start + self.sizes[place])
        layer = Linear(self.inputs, self.sizes[place], bias=self._has_bias[place], device="meta")
        layer.weight = torch.nn.Parameter(self._weight.to_dense()[rows], requires_grad=False)
        if self._bias is not None and self._has_bias[place]:
            layer.bias = torch.nn.Parameter(self._bias[rows], requires_grad=False)
        return layer


class PackedLinear(Module):
    """One of the linear layers whose weights a product is made of.

    The first of them that is given an input computes for all of them; the others find their parts on the input.
    """

    def __init__(self, product: Product, place: int) -> None:
        super().__init__()
        self.in_features, self.out_features = product.inputs, product.sizes[place]
        self._product = product
        self._place = place

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (…, in_features) times the weights, with the activation where there is one. (…, out_features)"""
        product = self._product
        if len(product.sizes) == 1:
            return product(states)
        waiting: tuple[Product, dict[int, torch.Tensor]] | None = getattr(states, PARTS, None)
        if waiting is None or waiting[0] is not product or self._place not in waiting[1]:
            waiting = product, dict(enumerate(torch.split(product(states), product.sizes, dim=-1)))
            setattr(states, PARTS, waiting)
        part = waiting[1].pop(self._place)
        if not waiting[1]:
            delattr(states, PARTS)
        return part


def _is_packable(module: Module) -> TypeGuard[Linear]:
    return type(module) is Linear and _gains(module.weight)


def _gains(weight: torch.Tensor) -> bool:
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    if weight.device.type != "cpu" or not has_onednn:
        return False
    if torch.backends.cpu.get_cpu_capability() not in CAPABILITIES:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


class _Watch:
    """Hooks that see which linear layers are given one input, and what is given their outputs."""

    def __init__(self) -> None:
        self.calls: Counter[Module] = Counter()
        self.groups: list[list[Linear]] = []  # called one after the other, with the same input
        self.followers: dict[Module, Module] = {}
        self._input: object = None
        self._layer: Module | None = None
        self._output: object = None

    def before_linear(self, layer: Module, args: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, Linear)
        if not args or args[0].shape[:-1].numel() < LEAST_ROWS:
            return
        if args[0] is self._input:
            self.groups[-1].append(layer)
        else:
            self.groups.append([layer])
        self._input = args[0]

    def after_linear(self, layer: Module, _: object, output: object) -> None:
        self.calls[layer] += 1
        self._layer, self._output = layer, output

    def after_other(self, module: Module, args: tuple[object, ...], _: object) -> None:
        self.calls[module] += 1
        if self._layer is not None and args and args[0] is self._output:
            self.followers[self._layer] = module


def _watch(
    model: Module, run: Callable[[], object]
) -> tuple[list[list[Linear]], dict[Linear, tuple[Module, Activation]]]:
    """Run a batch. Return the layers to pack, those with one input together, and the activations that follow others."""
    watch = _Watch()
    handles = []
    for module in model.modules():
        if _is_packable(module):
            handles.append(module.register_forward_pre_hook(watch.before_linear))
            handles.append(module.register_forward_hook(watch.after_linear))
        elif next(module.children(), None) is None and next(module.parameters(), None) is None:
            handles.append(module.register_forward_hook(watch.after_other))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    groups, alone = [], {}
    for group in watch.groups:
        if all(watch.calls[layer] == 1 for layer in group) and len({layer.weight.dtype for layer in group}) == 1:
            groups.append(group)
        else:
            alone.update(dict.fromkeys(group))
    groups += [[layer] for layer in alone]
    activations = {}
    for layer, *others in groups:
        follower = watch.followers.get(layer)
        if follower is not None and not others and watch.calls[layer] == watch.calls[follower] == 1:
            activation = _recognise(follower)
            if activation is not None:
                activations[layer] = follower, activation
    return groups, activations


def _leave_file(model: Module) -> None:
    """Copy the weights that were not packed. All that come from a file map all of it, and keep it in memory."""
    with torch.inference_mode(mode=False):
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()


def _recognise(module: Module) -> Activation | None:
    """Return which activation a module without weights computes, seen from what it makes of some numbers."""
    numbers = torch.linspace(-8, 8, 257)
    try:
        found = module(numbers)
    except Exception:  # noqa: BLE001 - a module of another kind, which takes no such input
        return None
    if not torch.is_tensor(found) or found.shape != numbers.shape:
        return None
    return next((one for one in ACTIVATIONS if (one.reference(numbers) - found).abs().max() <= CLOSE), None)


def _slots(model: Module) -> dict[Module, list[tuple[Module, str]]]:
    """Return where each module is: its parents, and its name in each."""
    slots = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        parent, _, name = path.rpartition(".")
        slots[module].append((model.get_submodule(parent), name))
    return slots


def _itself(module: Module) -> Module:
    return module
