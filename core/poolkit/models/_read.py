"""Turns a model's configuration files and the user's overrides into a `ModelInfo`, each value with its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from poolkit.config import ModelConfig, PoolerConfig
from poolkit.contract import Output
from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.contract.model_specs import PoolingMode, PoolingSpec, TextSpec, VectorSpec
from poolkit.errors import ModelError
from poolkit.models._dimensions import default_dimensions, matryoshka_dimensions
from poolkit.models._files import find_model_folder, read_object
from poolkit.models._heads import EVERY_MODELS_OUTPUTS, head_outputs, read_steps
from poolkit.models._image_models import IMAGE_MODELS, read_image_model
from poolkit.models._labels import read_labels
from poolkit.models._layers import check_widths
from poolkit.models._lengths import find_max_model_len
from poolkit.models._logit_rerankers import read_reranker
from poolkit.models._multi_vector import resolve_multi_vector
from poolkit.models._prompts import prompt_decisions
from poolkit.models._sentence_transformers import SentenceTransformersFiles, read_sentence_transformers
from poolkit.models._similarity import read_similarity

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

POOLING_TYPES = {"CLS": PoolingMode.CLS, "LAST": PoolingMode.LAST, "MEAN": PoolingMode.MEAN}


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
    source = "local folder" if str(root) == config.model else config.model
    if architecture in IMAGE_MODELS:
        return read_image_model(config, files, hf, architecture=architecture, source=source)
    if files.pools_itself:
        raise ModelError(
            f"{files.folder / str(files.settings_file)} has module_output_name 'sentence_embedding', but "
            f"{architecture or model_type} gives token vectors: poolkit runs {', '.join(IMAGE_MODELS)} so."
        )
    hidden_size = _integer(hf, HIDDEN_SIZE_KEYS, path)
    position_offset = _position_offset(model_type, hf)
    room = _room(hf, position_offset)
    max_model_len, length_decision = find_max_model_len(config, files, room=room)
    multi_vector = None
    length_decisions = [length_decision]
    if files.multi_vector is not None:
        multi_vector, length_decisions = resolve_multi_vector(
            files.multi_vector,
            longest=max_model_len,
            asked=config.max_model_len,
            room=room,
        )
        max_model_len = max(multi_vector.query_length, multi_vector.document_length)
    pooling, pooling_decision = _pooling(config.pooler_config, files, model_type, architecture)
    token_vector_size = check_widths(files.layers.of_tokens, hidden_size, given=f"token vectors of {hidden_size}")
    embedding_size = check_widths(
        files.layers.of_sentence,
        len(pooling) * token_vector_size,
        given=f"pooling {' + '.join(pooling)} over token vectors of {token_vector_size}",
    )
    similarity, similarity_decision = read_similarity(files.settings, is_multi_vector=multi_vector is not None)
    matryoshka = matryoshka_dimensions(hf, files.settings, config.pooler_config)
    output_size = embedding_size if multi_vector is None else token_vector_size
    dimensions, dimensions_decision = default_dimensions(config, files.settings, output_size, matryoshka)
    decisions = [
        Decision("model", str(files.folder), source),
        Decision("architecture", architecture or model_type, "config.json"),
        *length_decisions,
        pooling_decision,
    ]
    layers = files.layers
    # Without them, sentence-transformers' module has nothing to mix and leaves the last layer as it is.
    mix = layers.mix if hf.get("output_hidden_states") else None
    if mix is not None:
        value = f"a weighted mean of the layers from {mix.first} on"
        decisions.append(Decision("token vectors", value, f"{mix.folder.name}/config.json"))
    elif layers.mix is not None:
        decisions.append(Decision("token vectors", "the last layer's", "config.json has no output_hidden_states"))
    decisions += [
        Decision(
            name if spec.only_for is None else f"{name} ({spec.only_for})", str(spec), f"{spec.folder.name}/config.json"
        )
        for name, specs in (("token layer", layers.of_tokens), ("layer", layers.of_sentence))
        for spec in specs
    ]
    if multi_vector is not None or "similarity_fn_name" in files.settings:
        decisions.append(similarity_decision)
    reranker, reranker_decisions = read_reranker(config, hf, architecture, files=files)
    decisions += reranker_decisions
    answers_by_token = reranker.logit_score is not None
    labels = read_labels(hf, architecture, path=path, cross_encoder=files.settings, answers_by_token=answers_by_token)
    if labels is not None:
        decisions.append(labels[1])
    vocab_size = _integer(hf, ("vocab_size",), path)
    classifier = labels[0] if labels is not None else None
    steps, step_decisions = read_steps(
        config,
        architecture,
        labels=len(classifier.label_names) if classifier is not None else None,
        vocab_size=vocab_size,
    )
    decisions += [dimensions_decision, *step_decisions]
    decisions += prompt_decisions(files.prompts, files.default_prompt_name, pools_prompt=layers.includes_prompt)
    return ModelInfo(
        name=config.model,
        path=files.folder,
        architecture=architecture,
        model_type=model_type,
        outputs=_outputs(files, architecture, config.pooler_config, answers_by_token=answers_by_token),
        hidden_size=hidden_size,
        text=TextSpec(
            max_model_len=max_model_len,
            vocab_size=vocab_size,
            position_offset=position_offset,
            lowercases=files.lowercases,
            prompts=files.prompts,
            default_prompt_name=files.default_prompt_name,
            default_input_type=files.default_input_type or "document",
        ),
        vector=VectorSpec(
            size=embedding_size,
            similarity=similarity,
            dimensions=dimensions,
            matryoshka_dimensions=matryoshka,
        ),
        pooling=PoolingSpec(
            layer_mix=mix,
            token_layers=layers.of_tokens,
            modes=pooling,
            includes_prompt=layers.includes_prompt,
            layers=layers.of_sentence,
            normalizes=layers.normalizes,
        ),
        classifier=classifier,
        reranker=reranker,
        steps=steps,
        multi_vector=multi_vector,
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


def _room(hf: Mapping[str, object], position_offset: int) -> int | None:
    """Return how many tokens have a position; None where the model has no end of them."""
    positions = _first_integer(hf, POSITION_KEYS)
    return positions - position_offset if positions is not None and positions > 0 else None


def _pooling(
    pooler: PoolerConfig, files: SentenceTransformersFiles, model_type: str, architecture: str
) -> tuple[tuple[PoolingMode, ...], Decision]:
    if pooler.pooling_type in POOLING_TYPES:
        modes: tuple[PoolingMode, ...] = (POOLING_TYPES[pooler.pooling_type],)
        source = "pooler_config.pooling_type"
    elif files.multi_vector is not None:
        return (), Decision("pooling", "none: each token has its vector", files.multi_vector.source)
    elif files.layers.pooling:
        modes, source = files.layers.pooling, files.layers.pooling_source
    elif model_type in DECODERS or architecture.endswith("ForCausalLM"):
        modes, source = (PoolingMode.LAST,), "the architecture, a decoder; there is no Pooling module"
    else:
        modes, source = (PoolingMode.CLS,), "the architecture, an encoder; there is no Pooling module"
    return modes, Decision("pooling", " + ".join(modes), source)


def _outputs(
    files: SentenceTransformersFiles, architecture: str, pooler: PoolerConfig, *, answers_by_token: bool
) -> tuple[Output, ...]:
    if answers_by_token:
        return (Output.LOGITS, *EVERY_MODELS_OUTPUTS)
    if files.is_sparse:
        return (Output.HIDDEN,)
    if files.multi_vector is not None:
        return (Output.TOKEN_VECTORS, Output.HIDDEN)
    if not files.layers.pooling:
        return head_outputs(architecture, pooler.pooling_type)
    return head_outputs("", pooler.pooling_type)  # sentence-transformers pools what the base gives: no head is left
