"""Reads what sentence-transformers saved beside a checkpoint: modules.json and each module's settings.

Both schemas are read: the module types and keys of old, and those renamed in sentence-transformers 5.4. A module or
setting that would change the answer and that poolkit does not have is an error, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poolkit.contract.model_specs import InputType
from poolkit.errors import ModelError
from poolkit.models._files import read_object
from poolkit.models._layers import Layers, read_layers
from poolkit.models._modules import SPARSE_POOLING, read_modules
from poolkit.models._multi_vector import MultiVectorFiles, is_stanford, read_multi_vector, read_stanford
from poolkit.models._prompts import read_prompts

__all__ = ["SentenceTransformersFiles", "read_sentence_transformers"]

SHARED_FILE = "config_sentence_transformers.json"

TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

TRANSFORMER_OUTPUTS = ("token_embeddings", "sentence_embedding", "scores", "causal_logits")
"""What the Transformer module may give: a cross-encoder's is the whole model and gives scores, or a causal LM's; one of
texts and images gives its own vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceTransformersFiles:
    """What modules.json and the files it points to say. Without a modules.json: only the folder.

    Attributes:
        folder: where config.json, the tokenizer and the weights lie.
        settings_file: the Transformer module's own settings file, or None where it has none.
        max_seq_length: the longest prompt in tokens, or None where the settings do not say.
        layers: what turns hidden states into vectors.
        multi_vector: what a multi-vector model says of queries and documents; None for other models.
        prompts: by name; a multi-vector model's with their markers.
        default_prompt_name: of the one put before a text by default; None for none.
        default_input_type: which route a prompt takes where nobody says what it is; None where there are no routes.
        logit_score: the folder of the module that makes a score of a causal LM's logits; None where there is none.
        pools_itself: whether the Transformer module gives vectors of texts, as a model of texts and images does.
        is_sparse: whether the model was trained for sparse weights, so that its vectors mean nothing.
        settings: what config_sentence_transformers.json says; a multi-vector model's prompts with their markers.
    """

    folder: Path
    settings_file: str | None = None
    max_seq_length: int | None = None
    lowercases: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    layers: Layers = field(default_factory=Layers)
    multi_vector: MultiVectorFiles | None = None
    default_input_type: InputType | None = None
    logit_score: Path | None = None
    pools_itself: bool = False
    is_sparse: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def read_sentence_transformers(root: Path) -> SentenceTransformersFiles:
    """Read the sentence-transformers files of the model in folder `root`."""
    modules = read_modules(root)
    if not modules.listed:
        return _without_modules(root)
    shared = read_object(root / SHARED_FILE) or {}
    folder = modules.listed[0].folder
    settings_file, settings = _read_transformer_settings(folder)
    multi_vector = read_multi_vector(root, modules, shared=shared, transformer=settings)
    if multi_vector is not None:
        shared = {**shared, "prompts": multi_vector.prompts}
    prompts, default_prompt_name = read_prompts(shared, root / SHARED_FILE)
    layers = read_layers(modules.listed[1:], is_multi_vector=multi_vector is not None)
    max_seq_length = settings.get("max_seq_length")
    return SentenceTransformersFiles(
        folder=folder,
        settings_file=settings_file,
        max_seq_length=max_seq_length if isinstance(max_seq_length, int) else None,
        lowercases=bool(settings.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt_name=default_prompt_name or _document_prompt_name(multi_vector),
        layers=layers,
        multi_vector=multi_vector,
        default_input_type=modules.default_input_type,
        logit_score=next((module.folder for module in modules.listed if module.kind == "LogitScore"), None),
        pools_itself=settings.get("module_output_name") == "sentence_embedding",
        is_sparse=SPARSE_POOLING in modules.kinds,
        settings=shared,
    )


def _without_modules(root: Path) -> SentenceTransformersFiles:
    if not is_stanford(root):
        return SentenceTransformersFiles(folder=root)
    multi_vector = read_stanford(root)
    assert multi_vector.projection is not None
    layers = Layers(of_tokens=(multi_vector.projection,), normalizes=True)
    return SentenceTransformersFiles(
        folder=root,
        prompts=multi_vector.prompts,
        default_prompt_name=_document_prompt_name(multi_vector),
        layers=layers,
        multi_vector=multi_vector,
        settings={"prompts": multi_vector.prompts},
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


def _document_prompt_name(multi_vector: MultiVectorFiles | None) -> str | None:
    """Return which prompt a multi-vector model puts before a text that nobody calls a query."""
    return "document" if multi_vector is not None and "document" in multi_vector.prompts else None
