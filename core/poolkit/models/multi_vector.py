"""Reads how a multi-vector model (ColBERT and the like) treats queries and documents, from any library's files.

Three kinds of files say it: sentence-transformers' own since 6.0, PyLate's, and `artifact.metadata` of Stanford's
ColBERT. What each leaves open is what sentence-transformers' MultiVectorEncoder takes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poolkit.contract import Output
from poolkit.contract.model_files import ModelFiles, read_object
from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import DenseSpec, Expansion, MultiVectorSpec
from poolkit.errors import ModelError

__all__ = ["MultiVectorFiles", "read_multi_vector", "resolve_multi_vector"]

STANFORD = "HF_ColBERT"
METADATA = "artifact.metadata"
MODEL_TYPES = ("MultiVectorEncoder", "ColBERT")
QUERY_LENGTH = 32
"""ColBERT's own, where no file says how long a query is filled up to."""
PUNCTUATION = tuple(string.punctuation)
MARKERS = {"query": ("query_token_id", "[unused0]"), "document": ("doc_token_id", "[unused1]")}
PYLATE_PREFIXES = {"query": "query_prefix", "document": "document_prefix"}
PYLATE_KEYS = (
    "query_length",
    "document_length",
    "query_expansion",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    *PYLATE_PREFIXES.values(),
    "skiplist_words",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiVectorFiles:
    """Content of a multi-vector model's files. The names are those of `MultiVectorSpec`; None is left open.

    Attributes:
        prompts: put before a text of each input type; they hold the markers.
        projection: the dense layer that lies among the base's weights, as Stanford saves it.
        source: the file that says it.
    """

    query_length: int | None = None
    document_length: int | None = None
    expansion: Expansion | None = None
    markers: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    skiplist: tuple[str, ...] = ()
    skips_in: tuple[str, ...] = ("document",)
    kept_token_ids: tuple[int, ...] = ()
    projection: DenseSpec | None = None
    source: str


def read_multi_vector(files: ModelFiles) -> MultiVectorFiles | None:
    """Return what the files say, or None if it is no multi-vector model."""
    architectures = files.hf_config.get("architectures")
    is_stanford = isinstance(architectures, list) and STANFORD in architectures
    if not files.has_modules:
        return _read_stanford(files.folder) if is_stanford else None
    shared, folder = files.shared, files.folder
    mask = next((module.path for module in files.modules if module.type == "MultiVectorMask"), None)
    is_theirs = files.is_pylate or any(key in shared for key in PYLATE_PREFIXES.values())
    if not (mask or is_theirs or shared.get("model_type") in MODEL_TYPES or is_stanford):
        return None
    knobs = {**_pylate_knobs(shared), **{key: files.transformer[key] for key in KNOBS if key in files.transformer}}
    prompts = shared.get("prompts")
    prompts = dict(prompts) if isinstance(prompts, dict) else {}
    markers = {kind: str(shared[key] or "") for kind, key in PYLATE_PREFIXES.items() if key in shared}
    for kind, marker in markers.items():
        prompts[kind] = marker + (prompts.get(kind) or "").removeprefix(marker)
    skips = read_object(mask) or {} if mask else {}
    words = skips.get("skiplist_words") or () if mask else shared.get("skiplist_words", PUNCTUATION)
    tasks = skips.get("skiplist_tasks") or ("document",)
    expansion = _read_expansion(knobs.get("query_expansion"), folder)
    if expansion is not None and mask is None and shared.get("model_type") == "MultiVectorEncoder":
        raise ModelError(
            f"{files.root / 'modules.json'} lists no MultiVectorMask, without which query expansion is lost."
        )
    return MultiVectorFiles(
        query_length=_length(knobs, "query_length"),
        document_length=_length(knobs, "document_length"),
        expansion=expansion,
        markers=tuple(markers.values()),
        prompts={kind: str(prompt or "") for kind, prompt in prompts.items()},
        skiplist=_strings(PUNCTUATION if words is None else words),
        skips_in=_strings([tasks] if isinstance(tasks, str) else tasks),
        kept_token_ids=_integers(skips.get("keep_only_token_ids")),
        source="config_sentence_transformers.json" if is_theirs else f"{folder.name}/…",
    )


def _read_stanford(folder: Path) -> MultiVectorFiles:
    """Read a checkpoint of Stanford's ColBERT."""
    try:
        metadata = json.loads((folder / METADATA).read_text("utf-8"))
    except FileNotFoundError:
        metadata = {}
    except (OSError, ValueError) as exc:
        raise ModelError(f"{folder / METADATA} cannot be read as JSON: {exc}. Fetch the model again.") from exc
    markers = {kind: f"{metadata.get(key) or default} " for kind, (key, default) in MARKERS.items()}
    length = metadata.get("query_maxlen") or QUERY_LENGTH
    attends = bool(metadata.get("attend_to_mask_tokens"))
    return MultiVectorFiles(
        document_length=_length(metadata, "doc_maxlen"),
        expansion=_read_expansion({"strategy": "fixed", "length": length, "attend": attends}, folder),
        markers=tuple(markers.values()),
        prompts=markers,
        skiplist=PUNCTUATION if metadata.get("mask_punctuation", True) else (),
        projection=_read_projection(folder, metadata),
        source=METADATA,
    )


KNOBS = ("query_length", "document_length", "query_expansion")


def resolve_multi_vector(
    files: MultiVectorFiles, *, longest: int, asked: int | None, room: int | None
) -> tuple[MultiVectorSpec, list[Decision]]:
    """Return what holds of queries and documents, and why.

    Args:
        files: what the model's files say.
        longest: the longest prompt that the base is said to take, where `files` do not say.
        asked: the longest prompt that the user asks for.
        room: how many positions the base has; None where it has no end of them.
    """
    bounds = [bound for bound in (asked, room) if bound is not None]
    expansion = files.expansion
    query = expansion.length if expansion is not None and expansion.is_fixed else files.query_length or longest
    query = min(query, *bounds)
    document = min(asked or files.document_length or longest, *bounds)
    if expansion is not None and expansion.length > query:
        raise ModelError(
            f"Queries are filled up to {expansion.length} tokens ({files.source}), but at most {query} fit. Set "
            f"max_model_len to {expansion.length} or more."
        )
    decisions = [Decision("max length", f"{query} tokens a query, {document} a document", files.source)]
    if expansion is not None:
        seen = "seen" if expansion.attends else "not seen"
        value = f"to {expansion.length} tokens with {expansion.token}, {seen} by the query's own"
        decisions.append(Decision("query expansion", value, files.source))
    if files.skiplist:
        value = f"{len(files.skiplist)} tokens in every {' and '.join(files.skips_in)}"
        decisions.append(Decision("skiplist", value, files.source, frozenset((Output.TOKEN_VECTORS,))))
    spec = MultiVectorSpec(
        query_length=query,
        document_length=document,
        expansion=expansion,
        markers=files.markers,
        skiplist=files.skiplist,
        skips_in=files.skips_in,
        kept_token_ids=files.kept_token_ids,
    )
    return spec, decisions


def _pylate_knobs(shared: Mapping[str, object]) -> dict[str, object]:
    """Return PyLate's settings under the names that sentence-transformers has for them."""
    knobs = {key: shared[key] for key in KNOBS if key in shared and (shared[key] is not None or key == KNOBS[-1])}
    if "query_expansion" in knobs or not any(key in shared for key in PYLATE_KEYS):
        return knobs
    if shared.get("do_query_expansion") is False:
        return {**knobs, "query_expansion": None}
    attends = shared.get("attend_to_expansion_tokens", shared.get("attend_to_mask_tokens"))
    length = knobs.pop("query_length", None) or QUERY_LENGTH  # PyLate's query length is what is filled up to
    return {**knobs, "query_expansion": {"strategy": "fixed", "length": length, "attend": bool(attends)}}


def _read_expansion(settings: object, folder: Path) -> Expansion | None:
    if settings is None:
        return None
    if not isinstance(settings, Mapping) or settings.get("strategy") not in ("fixed", "min"):
        raise ModelError(
            f"query_expansion of the model in {folder} is {settings!r}; poolkit knows the strategies fixed and min."
        )
    length = settings.get("length")
    if not isinstance(length, int):
        raise ModelError(f"query_expansion of the model in {folder} must have a whole number length.")
    return Expansion(
        length=length,
        token=str(settings.get("token") or _filler(folder)),
        attends=bool(settings.get("attend", False)),
        is_fixed=settings["strategy"] == "fixed",
    )


def _filler(folder: Path) -> str:
    """Return what queries are filled up with: the mask token, or a decoder's last token."""
    named = [read_object(folder / name) or {} for name in ("tokenizer_config.json", "special_tokens_map.json")]
    for key in ("mask_token", "eos_token"):
        for settings in named:
            token = settings.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if token:
                return str(token)
    raise ModelError(
        f"{folder / 'tokenizer_config.json'} names no mask_token, with which this model fills up queries. Fetch the "
        "model again."
    )


def _read_projection(folder: Path, metadata: Mapping[str, object]) -> DenseSpec:
    """Return the layer that Stanford keeps among the base's weights, as linear.weight."""
    shape = _shape(folder / "model.safetensors", "linear.weight")
    width = (read_object(folder / "config.json") or {}).get("hidden_size")
    out_features, in_features = shape or (metadata.get("dim"), width)
    if not isinstance(out_features, int) or not isinstance(in_features, int):
        raise ModelError(
            f"{folder} holds no model.safetensors with linear.weight, and {METADATA} says no dim: how wide the token "
            "vectors are is unknown. Fetch the model again."
        )
    return DenseSpec(
        folder=folder, in_features=in_features, out_features=out_features, bias=False, activation="Identity"
    )


def _shape(path: Path, name: str) -> tuple[int, int] | None:
    """Return the shape of a matrix in a safetensors file, from the file's header alone."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MemoryError) as exc:
        raise ModelError(f"{path} cannot be read as safetensors: {exc}. Fetch the model again.") from exc
    shape = header.get(name, {}).get("shape", ())
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 else None


def _length(settings: Mapping[str, object], key: str) -> int | None:
    value = settings.get(key)
    return value if isinstance(value, int) else None


def _strings(values: object) -> tuple[str, ...]:
    return tuple(map(str, values)) if isinstance(values, list | tuple) else ()


def _integers(values: object) -> tuple[int, ...]:
    return tuple(map(int, values)) if isinstance(values, list | tuple) else ()
