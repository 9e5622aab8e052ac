"""Turns a model's configuration files and the user's overrides into a `ModelInfo`, each value with its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from poolkit.config import ModelConfig, PoolerConfig
from poolkit.contract import Activation, Output
from poolkit.errors import ModelError
from poolkit.models._files import find_model_folder
from poolkit.models._labels import read_labels
from poolkit.models._sentence_transformers import SentenceTransformersFiles, read_object, read_sentence_transformers
from poolkit.models.info import Decision, ModelInfo, PoolingMode

__all__ = ["read_model"]

POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types that number a sequence's tokens from pad_id + 1."""

DECODERS = frozenset(
    {
        "bloom",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "llama",
        "mistral",
        "mixtral",
        "olmo",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "stablelm",
    }
)
"""Model types whose last token has seen all the others, so that it stands for them where no file says otherwise."""

HIDDEN_SIZE_KEYS = ("hidden_size", "dim", "d_model", "n_embd")
POSITION_KEYS = ("max_position_embeddings", "n_positions", "n_ctx")
NO_MAXIMUM = 10**9
"""Tokenizers without a maximum write about 1e30 as model_max_length."""

POOLING_TYPES = {"CLS": PoolingMode.CLS, "LAST": PoolingMode.LAST, "MEAN": PoolingMode.MEAN}

BEST_OUTPUT_BY_HEAD = {
    "ForSequenceClassification": Output.LOGITS,
    "ForTokenClassification": Output.TOKEN_LOGITS,
}
EVERY_MODELS_OUTPUTS = (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)


def read_model(config: ModelConfig) -> ModelInfo:
    """Read what the model is and can do. No weights are loaded and torch is not imported.

    Raises ModelError where files are missing or unreadable, or ask for something poolkit does not have.
    """
    root = find_model_folder(config)
    files = read_sentence_transformers(root)
    path = files.folder / "config.json"
    saved = read_object(path)
    if saved is None:
        raise ModelError(
            f"{files.folder} has no config.json, so it is not a Hugging Face model. Give the folder that holds one."
        )
    hf = {**saved, **config.hf_overrides}

    architectures = hf.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    model_type = hf.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(f"{path} has no model_type, so poolkit cannot tell what the model is.")
    hidden_size = _integer(hf, HIDDEN_SIZE_KEYS, path)
    position_offset = _position_offset(model_type, hf)
    max_model_len, length_decision = _max_model_len(config, files, hf, position_offset)
    pooling, pooling_decision = _pooling(config.pooler_config, files, model_type, architecture)
    embedding_size = _embedding_size(files, pooling, hidden_size)
    matryoshka = _matryoshka_dimensions(hf)
    decisions = [
        Decision("model", str(files.folder), "local folder" if str(root) == config.model else config.model),
        Decision("architecture", architecture or model_type, "config.json"),
        length_decision,
        pooling_decision,
    ]
    decisions += [
        Decision(
            "dense layer",
            f"{spec.in_features} to {spec.out_features}, {spec.activation}",
            f"{spec.folder.name}/config.json",
        )
        for spec in files.dense
    ]
    labels = read_labels(hf, architecture, path=path, cross_encoder=files.settings)
    if labels is not None:
        decisions.append(labels.decision)
    decisions.append(_dimensions(config.pooler_config, config.model, embedding_size, matryoshka))
    if files.default_prompt:
        decisions.append(Decision("default prompt", repr(files.default_prompt), "config_sentence_transformers.json"))
    return ModelInfo(
        name=config.model,
        path=files.folder,
        architecture=architecture,
        model_type=model_type,
        outputs=_outputs(files, architecture),
        max_model_len=max_model_len,
        hidden_size=hidden_size,
        embedding_size=embedding_size,
        vocab_size=_integer(hf, ("vocab_size",), path),
        position_offset=position_offset,
        lowercases=files.lowercases,
        default_prompt=files.default_prompt,
        pooling=pooling,
        dense=files.dense,
        normalizes=files.normalizes,
        matryoshka_dimensions=matryoshka,
        label_names=labels.names if labels is not None else None,
        problem_type=labels.problem_type if labels is not None else None,
        label_activation=labels.activation if labels is not None else Activation.IDENTITY,
        config=config,
        decisions=tuple(decisions),
    )


def _integer(hf: Mapping[str, object], keys: tuple[str, ...], path: Path) -> int:
    value = _first_integer(hf, keys)
    if value is None:
        raise ModelError(f"{path} has no whole number {' or '.join(keys)}. Fetch the model again, or set hf_overrides.")
    return value


def _first_integer(hf: Mapping[str, object], keys: tuple[str, ...]) -> int | None:
    return next((value for key in keys if isinstance(value := hf.get(key), int)), None)


def _position_offset(model_type: str, hf: Mapping[str, object]) -> int:
    if model_type not in POSITIONS_AFTER_PADDING:
        return 0
    pad_token_id = hf.get("pad_token_id")
    # 1 is the padding id that every one of these families was trained with; MPNet's code knows no other.
    return pad_token_id + 1 if isinstance(pad_token_id, int) and model_type != "mpnet" else 2


def _max_model_len(
    config: ModelConfig, files: SentenceTransformersFiles, hf: Mapping[str, object], position_offset: int
) -> tuple[int, Decision]:
    positions = _first_integer(hf, POSITION_KEYS)
    limits = []
    if files.max_seq_length is not None:
        # To sentence-transformers this replaces what the tokenizer's own file says.
        limits.append((files.max_seq_length, str(files.settings_file)))
    else:
        tokenizer = read_object(files.folder / "tokenizer_config.json") or {}
        length = tokenizer.get("model_max_length")
        if isinstance(length, int | float) and length < NO_MAXIMUM:
            limits.append((int(length), "tokenizer_config.json"))
    if positions is not None and positions > 0:
        limits.append((positions - position_offset, "config.json"))
        if config.max_model_len is not None and config.max_model_len > positions - position_offset:
            raise ModelError(
                f"max_model_len is {config.max_model_len}, but {config.model} has positions for "
                f"{positions - position_offset} tokens (config.json). Set it to that or less."
            )
    if config.max_model_len is not None:
        limits = [(config.max_model_len, "max_model_len")]
    if not limits:
        raise ModelError(
            f"Nothing in the files of {config.model} says how long a prompt may be. Set max_model_len to its maximum."
        )
    longest, source = min(limits, key=lambda limit: limit[0])
    return longest, Decision("max length", f"{longest} tokens", source)


def _pooling(
    pooler: PoolerConfig, files: SentenceTransformersFiles, model_type: str, architecture: str
) -> tuple[tuple[PoolingMode, ...], Decision]:
    if pooler.pooling_type is not None:
        modes: tuple[PoolingMode, ...] = (POOLING_TYPES[pooler.pooling_type],)
        source = "pooler_config.pooling_type"
    elif files.pooling:
        modes, source = files.pooling, files.pooling_source
    elif model_type in DECODERS or architecture.endswith("ForCausalLM"):
        modes, source = (PoolingMode.LAST,), "the architecture, a decoder; there is no Pooling module"
    else:
        modes, source = (PoolingMode.CLS,), "the architecture, an encoder; there is no Pooling module"
    return modes, Decision("pooling", " + ".join(modes), source)


def _embedding_size(files: SentenceTransformersFiles, pooling: tuple[PoolingMode, ...], hidden_size: int) -> int:
    width = len(pooling) * hidden_size
    for spec in files.dense:
        if spec.in_features != width:
            raise ModelError(
                f"{spec.folder / 'config.json'} takes vectors of {spec.in_features} numbers, but gets {width}: pooling "
                f"{' + '.join(pooling)} over token vectors of {hidden_size}."
            )
        width = spec.out_features
    return width


def _matryoshka_dimensions(hf: Mapping[str, object]) -> tuple[int, ...] | None:
    listed = hf.get("matryoshka_dimensions")
    if isinstance(listed, list) and listed:
        return tuple(sorted(int(dimension) for dimension in listed))
    return () if hf.get("is_matryoshka") else None


def _dimensions(pooler: PoolerConfig, name: str, embedding_size: int, matryoshka: tuple[int, ...] | None) -> Decision:
    asked = pooler.dimensions
    if asked is None:
        return Decision("dimensions", str(embedding_size), "config.json")
    if matryoshka is None:
        raise ModelError(
            f"pooler_config.dimensions is {asked}, but {name} is not a Matryoshka model: its vectors of "
            f"{embedding_size} numbers cannot be cut. Leave it out, or set hf_overrides is_matryoshka if it is one."
        )
    if asked > embedding_size or (matryoshka and asked not in matryoshka):
        allowed = ", ".join(map(str, matryoshka)) if matryoshka else f"1 to {embedding_size}"
        raise ModelError(f"pooler_config.dimensions is {asked}; {name} allows {allowed}.")
    return Decision("dimensions", str(asked), "pooler_config.dimensions")


def _outputs(files: SentenceTransformersFiles, architecture: str) -> tuple[Output, ...]:
    if files.is_sparse:
        return (Output.HIDDEN,)
    if not files.pooling:
        for suffix, best in BEST_OUTPUT_BY_HEAD.items():
            if architecture.endswith(suffix):
                return (best, *EVERY_MODELS_OUTPUTS)
    return EVERY_MODELS_OUTPUTS
