"""Reads the modules between hidden states and vectors: what is applied to token vectors, and what after pooling."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poolkit.contract.model_specs import (
    DenseSpec,
    InputType,
    LayerMixSpec,
    LayerNormSpec,
    LayerSpec,
    NormalizeSpec,
    PoolingMode,
)
from poolkit.errors import ModelError, did_you_mean
from poolkit.models._files import read_object
from poolkit.models._modules import Module

__all__ = ["Layers", "check_widths", "read_layers"]

TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What turns hidden states into vectors.

    Attributes:
        mix: how the base's layers become token vectors; None where those are what the last layer gives.
        of_tokens: applied to each token's vector.
        pooling: modes in the order of concatenation; () where there is no Pooling module.
        pooling_source: the file that the modes come from.
        includes_prompt: whether the tokens of a prompt are pooled too.
        of_sentence: applied after pooling.
        normalizes: whether all ends in a Normalize module; that one is none of the layers.
    """

    mix: LayerMixSpec | None = None
    of_tokens: tuple[LayerSpec, ...] = ()
    pooling: tuple[PoolingMode, ...] = ()
    pooling_source: str = ""
    includes_prompt: bool = True
    of_sentence: tuple[LayerSpec, ...] = ()
    normalizes: bool = False


def read_layers(modules: Sequence[Module], *, is_multi_vector: bool) -> Layers:
    """Read the settings of the modules after the Transformer.

    A multi-vector model has no vector of the sentence: there everything is about tokens.
    """
    layers: dict[str, list[LayerSpec]] = {TOKENS: [], SENTENCE: []}
    mix: LayerMixSpec | None = None
    poolings: dict[Path, tuple[tuple[PoolingMode, ...], bool]] = {}
    for module in modules:
        path = module.folder / "config.json"
        if module.kind == "Pooling" and not is_multi_vector:
            poolings[path] = _read_pooling(path)
        elif module.kind == "WeightedLayerPooling":
            if module.only_for is not None:
                raise ModelError(f"{path} is for one route alone; poolkit mixes the layers of all texts alike.")
            mix = LayerMixSpec(module.folder, _integer(_settings(path), "layer_start", path, default=4))
        elif module.kind in READERS:
            settings = (read_object(path) or {}) if module.kind == "Normalize" else _settings(path)
            where = TOKENS if is_multi_vector and module.kind == "Dense" else SENTENCE
            where = _where(settings, path, default=where)
            if where == TOKENS and poolings:
                raise ModelError(f"{path} works on token vectors after they were pooled, which changes nothing.")
            if where == TOKENS or not is_multi_vector:
                layers[where].append(READERS[module.kind](module, settings, path))
    if len(set(poolings.values())) > 1:
        raise ModelError(f"{' and '.join(map(str, poolings))} pool in two ways; poolkit pools all texts in one.")
    answered = layers[TOKENS if is_multi_vector else SENTENCE]
    normalizes = bool(answered) and isinstance(answered[-1], NormalizeSpec) and answered[-1].only_for is None
    if normalizes:
        answered.pop()
    path, (pooling, includes_prompt) = next(iter(poolings.items()), (Path(), ((), True)))
    return Layers(
        mix=mix,
        of_tokens=tuple(layers[TOKENS]),
        pooling=pooling,
        pooling_source=f"{path.parent.name}/{path.name}" if pooling else "",
        includes_prompt=includes_prompt,
        of_sentence=tuple(layers[SENTENCE]),
        normalizes=normalizes,
    )


def check_widths(specs: Sequence[LayerSpec], width: int, *, given: str) -> int:
    """Return the width of the rows after some layers, for queries as for documents.

    Args:
        specs: the layers.
        width: of the rows that the first of them takes.
        given: where those come from, for the message.

    Raises ModelError where a layer takes rows of another width.
    """
    widths: dict[InputType, int] = {"query": width, "document": width}
    for spec in specs:
        for input_type in widths if spec.only_for is None else (spec.only_for,):
            if isinstance(spec, NormalizeSpec):
                continue
            takes, gives = (
                (spec.in_features, spec.out_features) if isinstance(spec, DenseSpec) else (spec.size, spec.size)
            )
            if takes != widths[input_type]:
                raise ModelError(
                    f"{spec.folder / 'config.json'} takes vectors of {takes} numbers, but gets {widths[input_type]}: "
                    f"{given}."
                )
            widths[input_type] = gives
    if widths["query"] != widths["document"]:
        raise ModelError(
            f"The last layers of {specs[-1].folder.parent} give queries {widths['query']} numbers and documents "
            f"{widths['document']}; poolkit runs models that give both alike."
        )
    return widths["query"]


def _settings(path: Path) -> Mapping[str, object]:
    settings = read_object(path)
    if settings is None:
        raise ModelError(f"{path} is missing; modules.json names it. Fetch the model again.")
    return settings


def _where(settings: Mapping[str, object], path: Path, *, default: str) -> str:
    """Return what a module works on: token vectors or the sentence vector."""
    where = settings.get("module_input_name") or default
    for key, value in (("module_input_name", where), ("module_output_name", settings.get("module_output_name"))):
        if value not in ((TOKENS, SENTENCE) if key == "module_input_name" else (where, None)):
            allowed = f"{TOKENS!r} or {SENTENCE!r}" if key == "module_input_name" else repr(where)
            raise ModelError(f"{path} has {key} {value!r}; poolkit runs only {allowed}.")
    return str(where)


def _integer(settings: Mapping[str, object], key: str, path: Path, *, default: int | None = None) -> int:
    value = settings.get(key, default)
    if not isinstance(value, int):
        raise ModelError(f"{path} must have a whole number {key}. Fetch the model again.")
    return value


def _read_pooling(path: Path) -> tuple[tuple[PoolingMode, ...], bool]:
    """Return the pooling modes, and whether a prompt's tokens are pooled too."""
    settings = _settings(path)
    includes_prompt = bool(settings.get("include_prompt", True))
    named = settings.get("pooling_mode")
    if named is None:
        unknown = [key for key in settings if key.startswith("pooling_mode") and key not in POOLING_FLAGS]
        if unknown:
            raise ModelError(
                f"{path} sets {unknown[0]!r}, which poolkit does not know.{did_you_mean(unknown[0], POOLING_FLAGS)}"
            )
        # No flag at all is "mean" to sentence-transformers.
        flagged = tuple(mode for flag, mode in POOLING_FLAGS.items() if settings.get(flag))
        return flagged or (PoolingMode.MEAN,), includes_prompt
    names = named if isinstance(named, list) else [named]
    known = [mode.value for mode in PoolingMode]
    for name in names:
        if name not in known:
            raise ModelError(
                f"{path} has pooling_mode {name!r}, which poolkit does not know.{did_you_mean(str(name), known)} "
                f"It knows {', '.join(known)}."
            )
    return tuple(PoolingMode(str(name)) for name in names), includes_prompt


def _read_dense(module: Module, settings: Mapping[str, object], path: Path) -> DenseSpec:
    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    match = re.fullmatch(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)", activation)
    if match is None or match[1] not in ACTIVATIONS:
        raise ModelError(
            f"{path} has activation_function {activation!r}, which poolkit does not run. It runs torch.nn's "
            f"{', '.join(ACTIVATIONS)}."
        )
    return DenseSpec(
        folder=module.folder,
        in_features=_integer(settings, "in_features", path),
        out_features=_integer(settings, "out_features", path),
        bias=bool(settings.get("bias", True)),
        activation=match[1],
        has_residual=bool(settings.get("use_residual", False)),
        only_for=module.only_for,
    )


def _read_layer_norm(module: Module, settings: Mapping[str, object], path: Path) -> LayerNormSpec:
    return LayerNormSpec(folder=module.folder, size=_integer(settings, "dimension", path), only_for=module.only_for)


def _read_normalize(module: Module, _settings: Mapping[str, object], _path: Path) -> NormalizeSpec:
    return NormalizeSpec(folder=module.folder, only_for=module.only_for)


READERS: dict[str, Callable[[Module, Mapping[str, object], Path], LayerSpec]] = {
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
}
