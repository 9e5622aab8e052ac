"""Turns a model's configuration files and the operator's overrides into a `ModelInfo`, each value with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from poolkit.config import ModelConfig
from poolkit.contract import Output
from poolkit.contract.model_files import ModelFamily, ModelFiles, RerankerFamily
from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.errors import ModelError
from poolkit.models.classifier import list_outputs, read_classifier, read_steps
from poolkit.models.files import find_model_folder, read_files
from poolkit.models.multi_vector import read_multi_vector
from poolkit.models.pooling import read_pooling
from poolkit.models.rerankers import read_reranker
from poolkit.models.text import find_integer, read_text
from poolkit.models.vector import read_vector

__all__ = ["ModelTables", "read_model"]

HIDDEN_SIZE_KEYS = ("hidden_size", "dim", "d_model", "n_embd")
VECTORS = (Output.VECTOR, Output.TOKEN_VECTORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTables:
    """The open tables of group `poolkit.models`, one for each kind, by the names of their entries."""

    family: Mapping[str, object] = field(default_factory=dict)
    module: Mapping[str, object] = field(default_factory=dict)
    pooling: Mapping[str, object] = field(default_factory=dict)
    reranker: Mapping[str, object] = field(default_factory=dict)


def read_model(config: ModelConfig, tables: ModelTables, *, folder: Path | None = None) -> ModelInfo:
    """Read what the model is and can do. No weights are loaded and torch is not imported.

    Args:
        config: what the operator asks for.
        tables: the readers of modules, and the families that are known.
        folder: holds the model's files; by default it is found, or fetched.

    Raises ModelError where files are missing or unreadable, or ask for something poolkit does not have.
    """
    root = folder or find_model_folder(config)
    files = read_files(config, root)
    families = _families(files, tables.family)
    for family in reversed([*families.values()]):  # what the first says goes before the others
        if family.config is not None:
            files = replace(files, hf_config={**files.hf_config, **family.config(files)})
    head = next((family.head for family in families.values() if family.head is not None), None)
    hidden_size = find_integer(files, *HIDDEN_SIZE_KEYS)
    modalities = _modalities(files, families.values())
    in_files = read_multi_vector(files)
    text, multi_vector, text_decisions = read_text(files, families, multi_vector=in_files)
    pooling = read_pooling(
        files, families, in_files, hidden_size=hidden_size, modules=tables.module, modes=tables.pooling
    )
    is_multi_vector = multi_vector is not None or text.only_queries
    vector, vector_decisions = read_vector(
        files,
        embedding_size=pooling.embedding_size,
        answered_size=pooling.token_vector_size if multi_vector is not None else pooling.embedding_size,
        is_multi_vector=is_multi_vector,
    )
    gives_vectors = pooling.unknown is None and not pooling.task_modules
    reranker, reranker_decisions = read_reranker(
        files,
        cast("Mapping[str, RerankerFamily]", tables.reranker),
        head=head,
        makes_vectors=pooling.has_module or in_files is not None or not gives_vectors,
    )
    answers_by_token = reranker.logit_score is not None
    classifier, classifier_decisions = read_classifier(
        files, families.values(), head=head, answers_by_token=answers_by_token
    )
    labels = len(classifier.label_names) if classifier is not None else None
    steps, step_decisions = read_steps(files, families.values(), head=head, labels=labels, vocab_size=text.vocab_size)
    outputs = list_outputs(
        files,
        families.values(),
        answers_by_token=answers_by_token,
        is_multi_vector=multi_vector is not None,
        gives_vectors=gives_vectors,
        head=head,
        has_head=not pooling.has_module,
    )
    return ModelInfo(
        name=config.model,
        path=files.folder,
        architecture=files.architecture,
        model_type=files.model_type,
        outputs=outputs,
        hidden_size=hidden_size,
        text=text,
        vector=vector,
        pooling=pooling.spec,
        head=None if pooling.has_module else head,
        classifier=classifier,
        reranker=reranker,
        steps=steps,
        multi_vector=multi_vector,
        modalities=modalities,
        task_modules=pooling.task_modules,
        families=tuple(families.values()),
        unsupported=dict.fromkeys(VECTORS, pooling.unknown) if pooling.unknown is not None else {},
        config=config,
        decisions=(
            Decision("model", str(files.folder), "local folder" if str(root) == config.model else config.model),
            Decision("architecture", files.architecture or files.model_type, "config.json"),
            *text_decisions,
            *(Decision(name, str(spec), "config.json") for name, spec in modalities.items()),
            *pooling.decisions,
            *vector_decisions,
            *reranker_decisions,
            *classifier_decisions,
            *step_decisions,
        ),
    )


def _families(files: ModelFiles, table: Mapping[str, object]) -> Mapping[str, ModelFamily]:
    """Return the families that the model belongs to, by the names of their entries: those of plugins first."""
    families = cast("Mapping[str, ModelFamily]", table)
    found = {name: family for name, family in reversed([*families.items()]) if family.matches(files)}
    says_so = files.transformer.get("module_output_name") == "sentence_embedding"
    if says_so and not any(family.pools_itself for family in found.values()):
        known = ", ".join(name for name, family in families.items() if family.pools_itself)
        raise ModelError(
            f"{files.folder / str(files.transformer_file)} has module_output_name 'sentence_embedding', but "
            f"{files.architecture or files.model_type} gives token vectors: poolkit runs the families {known} so."
        )
    return found


def _modalities(files: ModelFiles, families: Iterable[ModelFamily]) -> Mapping[str, object]:
    """Return the modalities that the model reads beside text, with what its files say of each."""
    readers = next((family.modalities for family in families if family.modalities), {})
    return {name: read(files) for name, read in readers.items()}
