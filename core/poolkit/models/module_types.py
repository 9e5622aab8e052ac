"""Reads the modules of sentence-transformers that make vectors: poolkit's own entries of the table `module`."""

from __future__ import annotations

import re

from poolkit.contract.model_files import Module, PoolingModule
from poolkit.contract.model_specs import DenseSpec, LayerMixSpec, LayerNormSpec, NormalizeSpec, PoolingMode
from poolkit.errors import ModelError, did_you_mean

__all__ = [
    "read_dense",
    "read_layer_mix",
    "read_layer_norm",
    "read_normalize",
    "read_nothing",
    "read_pooling_module",
]

POOLING_FLAGS = {
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_max_tokens": PoolingMode.MAX,
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": PoolingMode.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": PoolingMode.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": PoolingMode.LAST,
}
"""The old flags, in the order in which several at once are concatenated."""

ACTIVATIONS = ("GELU", "Identity", "ReLU", "SiLU", "Sigmoid", "Tanh")
"""Classes of torch.nn that a Dense layer may name: all elementwise, none with settings of its own."""


def read_pooling_module(module: Module) -> PoolingModule:
    """Read a Pooling."""
    settings = module.settings()
    includes_prompt = bool(settings.get("include_prompt", True))
    named = settings.get("pooling_mode")
    if named is not None:
        modes = named if isinstance(named, list) else [named]
        return PoolingModule(tuple(map(str, modes)), includes_prompt)
    unknown = [key for key in settings if key.startswith("pooling_mode") and key not in POOLING_FLAGS]
    if unknown:
        raise ModelError(
            f"{module.path} sets {unknown[0]!r}, which poolkit does not know.{did_you_mean(unknown[0], POOLING_FLAGS)}"
        )
    # No flag at all is "mean" to sentence-transformers.
    flagged = tuple(mode for flag, mode in POOLING_FLAGS.items() if settings.get(flag))
    return PoolingModule(flagged or (PoolingMode.MEAN,), includes_prompt)


def read_layer_mix(module: Module) -> LayerMixSpec:
    """Read a WeightedLayerPooling."""
    if module.only_for is not None:
        raise ModelError(f"{module.path} is for one route alone; poolkit mixes the layers of all texts alike.")
    return LayerMixSpec(module.folder, module.whole_number("layer_start", default=4))


def read_dense(module: Module) -> DenseSpec:
    """Read a Dense."""
    settings = module.settings()
    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    match = re.fullmatch(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)", activation)
    if match is None or match[1] not in ACTIVATIONS:
        raise ModelError(
            f"{module.path} has activation_function {activation!r}, which poolkit does not run. It runs torch.nn's "
            f"{', '.join(ACTIVATIONS)}."
        )
    return DenseSpec(
        folder=module.folder,
        in_features=module.whole_number("in_features"),
        out_features=module.whole_number("out_features"),
        bias=bool(settings.get("bias", True)),
        activation=match[1],
        has_residual=bool(settings.get("use_residual", False)),
        only_for=module.only_for,
    )


def read_layer_norm(module: Module) -> LayerNormSpec:
    """Read a LayerNorm."""
    return LayerNormSpec(folder=module.folder, size=module.whole_number("dimension"), only_for=module.only_for)


def read_normalize(module: Module) -> NormalizeSpec:
    """Read a Normalize."""
    return NormalizeSpec(folder=module.folder, only_for=module.only_for)


def read_nothing(module: Module) -> None:
    """Read a module that changes nothing here: Dropout, or what another reader takes (MultiVectorMask, LogitScore)."""
