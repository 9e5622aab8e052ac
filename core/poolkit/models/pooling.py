"""Reads how hidden states become the vector of a text: the modules that modules.json lists after the Transformer.

Each type of module is an entry of the table `module`, each pooling mode one of the table `pooling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from poolkit.contract import Output
from poolkit.contract.model_files import (
    ModelFamily,
    ModelFiles,
    Module,
    ModuleReader,
    ModuleRecord,
    PoolingModule,
    TaskModule,
)
from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import (
    LayerMixSpec,
    LayerSpec,
    NormalizeSpec,
    PoolingMode,
    PoolingSpec,
)
from poolkit.contract.params import InputType
from poolkit.errors import ConfigError, ModelError, PoolkitError, did_you_mean
from poolkit.models.multi_vector import MultiVectorFiles

__all__ = ["VECTORS", "Pooling", "read_pooling"]

VECTOR = frozenset((Output.VECTOR,))
VECTORS = frozenset((Output.VECTOR, Output.TOKEN_VECTORS))

TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"

POOLING_TYPES = {"CLS": PoolingMode.CLS, "LAST": PoolingMode.LAST, "MEAN": PoolingMode.MEAN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """The pooling and the layers that the modules of a model describe.

    Attributes:
        spec: how token vectors become the vector of a text.
        embedding_size: width of that vector.
        token_vector_size: width of the vector of each token.
        has_module: True if a Pooling module is listed, so that no head is left.
        task_modules: settings of the modules whose work a task's own head does, by type.
        unknown: why vectors cannot be had: a module that no reader knows. None if all are known.
        decisions: for the start-up report.
    """

    spec: PoolingSpec
    embedding_size: int
    token_vector_size: int
    has_module: bool = False
    task_modules: Mapping[str, object] = field(default_factory=dict)
    unknown: str | None = None
    decisions: tuple[Decision, ...] = ()


@dataclass(slots=True)
class _Found:
    """The layers of the modules read so far."""

    layers: dict[str, list[LayerSpec]] = field(default_factory=lambda: {TOKENS: [], SENTENCE: []})
    mix: LayerMixSpec | None = None
    poolings: dict[Path, PoolingModule] = field(default_factory=dict)
    task_modules: dict[str, object] = field(default_factory=dict)
    unknown: str | None = None


def read_pooling(
    files: ModelFiles,
    families: Mapping[str, ModelFamily],
    multi_vector: MultiVectorFiles | None,
    *,
    hidden_size: int,
    modules: Mapping[str, object],
    modes: Mapping[str, object],
) -> Pooling:
    """Read the modules between hidden states and vectors.

    Args:
        files: the model's.
        families: those it belongs to.
        multi_vector: what a multi-vector model says; it has no vector of the text, everything is about tokens.
        hidden_size: width of the hidden states.
        modules: readers by the type of module.
        modes: known pooling modes.

    Raises ModelError where a module asks for something poolkit does not have.
    """
    found = _read_modules(files, modules, is_multi_vector=multi_vector is not None)
    if multi_vector is not None and multi_vector.projection is not None:
        found.layers[TOKENS].append(multi_vector.projection)
    normalizes = _takes_off_normalize(found.layers[TOKENS if multi_vector is not None else SENTENCE])
    normalizes = normalizes or (multi_vector is not None and multi_vector.projection is not None)
    of_tokens, of_sentence = tuple(found.layers[TOKENS]), tuple(found.layers[SENTENCE])
    if len(set(found.poolings.values())) > 1:
        raise ModelError(f"{' and '.join(map(str, found.poolings))} pool in two ways; poolkit pools all texts in one.")
    path, module = next(iter(found.poolings.items()), (Path(), PoolingModule(())))
    is_given = any(family.pools_itself for family in families.values())
    if is_given and (module.modes or of_tokens):
        raise ModelError(
            f"{files.folder} has sentence-transformers modules that pool the tokens of {files.architecture}, which "
            "gives its vectors itself. Fetch the model again."
        )
    source = f"{path.parent.name}/{path.name}"
    chosen, decision = _modes(files, families, multi_vector, module.modes, source)
    for mode in chosen:
        if mode not in modes:
            raise ModelError(f"{path} has pooling_mode {mode!r}: {_hint(modes, mode, noun='pooling mode')}")
    token_size = _check_widths(of_tokens, hidden_size, given=f"token vectors of {hidden_size}")
    given = f"pooling {' + '.join(chosen)} over token vectors of {token_size}"
    if is_given:
        given = f"vectors of {hidden_size}"
    embedding_size = _check_widths(of_sentence, hidden_size if is_given else len(chosen) * token_size, given=given)
    # Without them, sentence-transformers' module has nothing to mix and leaves the last layer as it is.
    mix = found.mix if files.hf_config.get("output_hidden_states") else None
    spec = PoolingSpec(
        layer_mix=mix,
        token_layers=of_tokens,
        modes=chosen,
        includes_prompt=module.includes_prompt,
        layers=of_sentence,
        normalizes=normalizes,
    )
    return Pooling(
        spec=spec,
        embedding_size=embedding_size,
        token_vector_size=token_size,
        has_module=bool(module.modes),
        task_modules=found.task_modules,
        unknown=found.unknown,
        decisions=(decision, *_decisions(spec, found.mix)),
    )


def _read_modules(files: ModelFiles, readers: Mapping[str, object], *, is_multi_vector: bool) -> _Found:
    found = _Found()
    for module in files.modules:
        if module.type not in readers:
            hint = _hint(readers, module.type, noun="module")
            found.unknown = found.unknown or f"{module.root / 'modules.json'} lists {module.type!r}: {hint}"
            continue
        record = _read(cast("ModuleReader", readers[module.type]), module)
        match record:
            case None:
                pass
            case PoolingModule():
                if not is_multi_vector:
                    found.poolings[module.path] = record
            case LayerMixSpec():
                found.mix = record
            case TaskModule():
                found.task_modules[module.type] = record.settings
            case _:
                _add_layer(found, module, record, is_multi_vector=is_multi_vector)
    return found


def _read(reader: ModuleReader, module: Module) -> ModuleRecord:
    try:
        return reader(module)
    except PoolkitError:
        raise
    except Exception as exc:
        raise ModelError(
            f"The reader of the module {module.type!r} failed on {module.path}: {type(exc).__name__}: {exc}"
        ) from exc


def _hint(table: Mapping[str, object], name: str, *, noun: str) -> str:
    """Return why a table has no entry of that name: the registry knows which plugin would bring it."""
    try:
        table[name]
    except ConfigError as error:
        return str(error)
    except KeyError:
        pass
    return f"no {noun} named {name!r}.{did_you_mean(name, table)}"


def _add_layer(found: _Found, module: Module, layer: LayerSpec, *, is_multi_vector: bool) -> None:
    default = TOKENS if is_multi_vector and module.type == "Dense" else SENTENCE
    settings = {} if isinstance(layer, NormalizeSpec) and not module.path.is_file() else module.settings()
    where = settings.get("module_input_name") or default
    for key, value in (("module_input_name", where), ("module_output_name", settings.get("module_output_name"))):
        if value not in ((TOKENS, SENTENCE) if key == "module_input_name" else (where, None)):
            allowed = f"{TOKENS!r} or {SENTENCE!r}" if key == "module_input_name" else repr(where)
            raise ModelError(f"{module.path} has {key} {value!r}; poolkit runs only {allowed}.")
    if where == TOKENS and found.poolings:
        raise ModelError(f"{module.path} works on token vectors after they were pooled, which changes nothing.")
    if where == TOKENS or not is_multi_vector:
        found.layers[str(where)].append(layer)


def _takes_off_normalize(layers: list[LayerSpec]) -> bool:
    """Take a Normalize off the end: tasks normalise by themselves, if they are asked to."""
    normalizes = bool(layers) and isinstance(layers[-1], NormalizeSpec) and layers[-1].only_for is None
    if normalizes:
        layers.pop()
    return normalizes


def _modes(
    files: ModelFiles,
    families: Mapping[str, ModelFamily],
    multi_vector: MultiVectorFiles | None,
    listed: tuple[str, ...],
    source: str,
) -> tuple[tuple[str, ...], Decision]:
    pooling_type = files.config.pooler_config.pooling_type
    own = next(((name, family) for name, family in families.items() if family.pooling is not None), None)
    if any(family.pools_itself for family in families.values()):
        modes = (own[1].pooling,) if own is not None and own[1].pooling is not None else ()
        return modes, Decision("pooling", "the model's own", "the architecture", VECTOR)
    if pooling_type in POOLING_TYPES:
        listed, source = (POOLING_TYPES[pooling_type],), "pooler_config.pooling_type"
    elif multi_vector is not None:
        return (), Decision("pooling", "none: each token has its vector", multi_vector.source, VECTOR)
    elif not listed and own is not None and own[1].pooling is not None:
        listed, source = (own[1].pooling,), f"the family {own[0]}; there is no Pooling module"
    elif not listed:
        listed, source = (PoolingMode.CLS,), "the architecture, an encoder; there is no Pooling module"
    return listed, Decision("pooling", " + ".join(listed), source, VECTOR)


def _decisions(spec: PoolingSpec, listed_mix: LayerMixSpec | None) -> list[Decision]:
    decisions = []
    if spec.layer_mix is not None:
        value = f"a weighted mean of the layers from {spec.layer_mix.first} on"
        decisions.append(Decision("token vectors", value, f"{spec.layer_mix.folder.name}/config.json"))
    elif listed_mix is not None:
        decisions.append(Decision("token vectors", "the last layer's", "config.json has no output_hidden_states"))
    for name, layers, outputs in (("token layer", spec.token_layers, VECTORS), ("layer", spec.layers, VECTOR)):
        for layer in layers:
            only_for = f"{name} ({layer.only_for})" if layer.only_for is not None else name
            decisions.append(Decision(only_for, str(layer), f"{layer.folder.name}/config.json", outputs))
    if not spec.includes_prompt:
        source = "include_prompt of the Pooling module"
        decisions.append(Decision("prompt tokens", "left out of pooling", source, VECTOR))
    return decisions


def _check_widths(layers: Sequence[LayerSpec], width: int, *, given: str) -> int:
    """Return the width of the rows after some layers, for queries as for documents.

    Args:
        layers: one after the other.
        width: of the rows that the first of them takes.
        given: where those come from, for the message.

    Raises ModelError where a layer takes rows of another width.
    """
    widths: dict[InputType, int] = {"query": width, "document": width}
    for layer in layers:
        for input_type in widths if layer.only_for is None else (layer.only_for,):
            if layer.in_features not in (None, widths[input_type]):
                raise ModelError(
                    f"{layer.folder / 'config.json'} takes vectors of {layer.in_features} numbers, but gets "
                    f"{widths[input_type]}: {given}."
                )
            if layer.out_features is not None:
                widths[input_type] = layer.out_features
    if widths["query"] != widths["document"]:
        raise ModelError(
            f"The last layers of {layers[-1].folder.parent} give queries {widths['query']} numbers and documents "
            f"{widths['document']}; poolkit runs models that give both alike."
        )
    return widths["query"]
