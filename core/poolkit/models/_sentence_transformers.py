"""Reads what sentence-transformers saved beside a checkpoint: modules.json and each module's settings.

Both schemas are read: the module types and keys of old, and those renamed in sentence-transformers 5.4. A module or
setting that would change the answer and that poolkit does not have is an error, never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poolkit.errors import ModelError, did_you_mean
from poolkit.models._files import read_json
from poolkit.models.info import DenseSpec, PoolingMode

__all__ = ["SentenceTransformersFiles", "read_object", "read_sentence_transformers"]

SHARED_FILE = "config_sentence_transformers.json"
KNOWN_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
SPARSE_POOLING = "SpladePooling"
"""Makes sparse weights of hidden states: a plugin's head does that."""

TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

TRANSFORMER_OUTPUTS = ("token_embeddings", "scores")
"""What the Transformer module may give: a cross-encoder's is the whole model and gives scores."""

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
class SentenceTransformersFiles:
    """What modules.json and the files it points to say. Without a modules.json: only the folder.

    Attributes:
        folder: where config.json, the tokenizer and the weights lie.
        settings_file: the Transformer module's own settings file, or None where it has none.
        max_seq_length: the longest prompt in tokens, or None where the settings do not say.
        pooling: modes in the order of concatenation; () where there is no Pooling module.
        pooling_source: the file that the modes come from.
        is_sparse: whether the model was trained for sparse weights, so that its vectors mean nothing.
        settings: what config_sentence_transformers.json says.
    """

    folder: Path
    settings_file: str | None = None
    max_seq_length: int | None = None
    lowercases: bool = False
    default_prompt: str = ""
    pooling: tuple[PoolingMode, ...] = ()
    pooling_source: str = ""
    dense: tuple[DenseSpec, ...] = ()
    normalizes: bool = False
    is_sparse: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def read_sentence_transformers(root: Path) -> SentenceTransformersFiles:
    """Read the sentence-transformers files of the model in folder `root`."""
    source = root / "modules.json"
    modules = read_json(source)
    if modules is None:
        return SentenceTransformersFiles(folder=root)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{source} must hold a list of modules. Repair it, or fetch the model again.")
    kinds = [_module_kind(module.get("type"), source) for module in modules]
    if kinds[:1] != ["Transformer"] or kinds.count("Transformer") > 1 or kinds.count("Pooling") > 1:
        raise ModelError(
            f"{source} lists {', '.join(kinds) or 'nothing'}; it must be one Transformer, then one Pooling."
        )
    if "Normalize" in kinds[:-1]:
        raise ModelError(f"{source} normalises before its last module, which poolkit cannot run.")

    folders = [root / str(module.get("path", "")) for module in modules]
    pooling: tuple[PoolingMode, ...] = ()
    pooling_source = ""
    dense = []
    shared = read_object(root / SHARED_FILE) or {}
    default_prompt = _default_prompt(shared, root / SHARED_FILE)
    for kind, folder in zip(kinds, folders, strict=True):
        if kind == "Pooling":
            pooling = _read_pooling(folder, default_prompt=default_prompt)
            pooling_source = f"{folder.name}/config.json"
        elif kind == "Dense":
            dense.append(_read_dense(folder))
    settings_file, settings = _read_transformer_settings(folders[0])
    max_seq_length = settings.get("max_seq_length")
    return SentenceTransformersFiles(
        folder=folders[0],
        settings_file=settings_file,
        max_seq_length=max_seq_length if isinstance(max_seq_length, int) else None,
        lowercases=bool(settings.get("do_lower_case", False)),
        default_prompt=default_prompt,
        pooling=pooling,
        pooling_source=pooling_source,
        dense=tuple(dense),
        normalizes=kinds[-1] == "Normalize",
        is_sparse=SPARSE_POOLING in kinds,
        settings=shared,
    )


def read_object(path: Path) -> Mapping[str, object] | None:
    """Return the object that a JSON file holds, or None where there is no such file."""
    content = read_json(path)
    if content is not None and not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object. Repair it, or fetch the model again.")
    return content


def _module_kind(dotted: object, source: Path) -> str:
    kind = str(dotted).rpartition(".")[2]
    if not str(dotted).startswith("sentence_transformers.") or kind not in (*KNOWN_MODULES, SPARSE_POOLING):
        raise ModelError(
            f"{source} lists a module of type {dotted!r}, which poolkit cannot run.{did_you_mean(kind, KNOWN_MODULES)} "
            f"It knows sentence-transformers' own {', '.join(KNOWN_MODULES)}."
        )
    return kind


def _read_transformer_settings(folder: Path) -> tuple[str | None, Mapping[str, object]]:
    for name in TRANSFORMER_FILES:
        settings = read_object(folder / name)
        if settings is not None:
            output = settings.get("module_output_name", "token_embeddings")
            if output not in TRANSFORMER_OUTPUTS:
                raise ModelError(
                    f"{folder / name} has module_output_name {output!r}; poolkit runs models that give "
                    f"{' or '.join(map(repr, TRANSFORMER_OUTPUTS))}."
                )
            return name, settings
    return None, {}


def _read_pooling(folder: Path, *, default_prompt: str) -> tuple[PoolingMode, ...]:
    path = folder / "config.json"
    settings = read_object(path)
    if settings is None:
        raise ModelError(f"{path} is missing; modules.json names it. Fetch the model again.")
    if not settings.get("include_prompt", True) and default_prompt:
        raise ModelError(
            f"{path} leaves the prompt out of pooling (include_prompt is false) and config_sentence_transformers.json "
            "sets a default prompt; poolkit cannot run the two together."
        )
    named = settings.get("pooling_mode")
    if named is None:
        unknown = [key for key in settings if key.startswith("pooling_mode") and key not in POOLING_FLAGS]
        if unknown:
            raise ModelError(
                f"{path} sets {unknown[0]!r}, which poolkit does not know.{did_you_mean(unknown[0], POOLING_FLAGS)}"
            )
        # No flag at all is "mean" to sentence-transformers.
        return tuple(mode for flag, mode in POOLING_FLAGS.items() if settings.get(flag)) or (PoolingMode.MEAN,)
    names = named if isinstance(named, list) else [named]
    known = [mode.value for mode in PoolingMode]
    for name in names:
        if name not in known:
            raise ModelError(
                f"{path} has pooling_mode {name!r}, which poolkit does not know.{did_you_mean(str(name), known)} "
                f"It knows {', '.join(known)}."
            )
    return tuple(PoolingMode(str(name)) for name in names)


def _read_dense(folder: Path) -> DenseSpec:
    path = folder / "config.json"
    settings = read_object(path)
    if settings is None:
        raise ModelError(f"{path} is missing; modules.json names it. Fetch the model again.")
    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    match = re.fullmatch(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)", activation)
    if match is None or match[1] not in ACTIVATIONS:
        raise ModelError(
            f"{path} has activation_function {activation!r}, which poolkit does not run. It runs torch.nn's "
            f"{', '.join(ACTIVATIONS)}."
        )
    for key, expected in (
        ("module_input_name", "sentence_embedding"),
        ("module_output_name", "sentence_embedding"),
        ("use_residual", False),
    ):
        value = settings.get(key)
        if value is not None and value != expected:
            raise ModelError(f"{path} has {key} {value!r}; poolkit runs only {expected!r}.")
    in_features, out_features = settings.get("in_features"), settings.get("out_features")
    if not isinstance(in_features, int) or not isinstance(out_features, int):
        raise ModelError(f"{path} must have whole numbers in_features and out_features. Fetch the model again.")
    return DenseSpec(
        folder=folder,
        in_features=in_features,
        out_features=out_features,
        bias=bool(settings.get("bias", True)),
        activation=match[1],
    )


def _default_prompt(settings: Mapping[str, object], path: Path) -> str:
    name = settings.get("default_prompt_name")
    prompts = settings.get("prompts")
    if name is None:
        return ""
    if not isinstance(prompts, dict) or name not in prompts:
        raise ModelError(f"{path} has default_prompt_name {name!r}, but its prompts do not hold that name.")
    return str(prompts[name] or "")
