"""Reads models of images and texts: two towers (CLIP, SigLIP), or one that gives each token a vector (ColPali and kin).

Their config.json leaves out whatever is transformers' own default, so transformers reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from poolkit.config import ModelConfig
from poolkit.contract import Output
from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.contract.model_specs import Expansion, ImageSpec, PoolingMode, PoolingSpec, TextSpec, VectorSpec
from poolkit.errors import ModelError
from poolkit.models._dimensions import default_dimensions, matryoshka_dimensions
from poolkit.models._files import read_object
from poolkit.models._layers import check_widths
from poolkit.models._lengths import find_max_model_len
from poolkit.models._prompts import prompt_decisions
from poolkit.models._sentence_transformers import SentenceTransformersFiles
from poolkit.models._similarity import read_similarity

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["IMAGE_MODELS", "read_image_model"]


@dataclass(frozen=True, slots=True)
class _Family:
    """What sets the models of one architecture apart.

    Attributes:
        is_multi_vector: whether each token has a vector, of an image too; else there is one for each image and text.
        size: which setting is the width of the vectors.
        fills_texts: on which side texts are filled up to the longest there can be, as they were in training, unless
            tokenizer_config.json says so; None where they are not.
    """

    is_multi_vector: bool
    size: str
    fills_texts: Literal["left", "right"] | None = None


IMAGE_MODELS: Mapping[str, _Family] = {
    "CLIPModel": _Family(is_multi_vector=False, size="projection_dim"),
    "SiglipModel": _Family(is_multi_vector=False, size="projection_size", fills_texts="right"),
    "Siglip2Model": _Family(is_multi_vector=False, size="projection_size", fills_texts="left"),
    "ColPaliForRetrieval": _Family(is_multi_vector=True, size="embedding_dim"),
    "ColQwen2ForRetrieval": _Family(is_multi_vector=True, size="embedding_dim"),
    "ColModernVBertForRetrieval": _Family(is_multi_vector=True, size="embedding_dim"),
}
"""By the first of config.json's `architectures`."""


def read_image_model(
    config: ModelConfig, files: SentenceTransformersFiles, hf: Mapping[str, object], *, architecture: str, source: str
) -> ModelInfo:
    """Read what a model of images and texts is and can do. No weights are loaded.

    Args:
        config: what the user says.
        files: what sentence-transformers saved.
        hf: config.json with the user's overrides.
        architecture: a key of `IMAGE_MODELS`.
        source: where the folder comes from.

    Raises ModelError where its files ask for something poolkit does not have.
    """
    family = IMAGE_MODELS[architecture]
    whole = _read_config(config, files)
    parts = getattr(whole, "vlm_config", whole)
    text, vision = parts.get_text_config(), parts.vision_config
    size = next(value for part in (whole, text) if (value := getattr(part, family.size, None)) is not None)
    if files.layers.pooling or files.layers.of_tokens:
        raise ModelError(
            f"{files.folder} has sentence-transformers modules that pool the tokens of {architecture}, which gives its "
            "vectors itself. Fetch the model again."
        )
    embedding_size = check_widths(files.layers.of_sentence, size, given=f"vectors of {size}")
    longest, length_decision = find_max_model_len(config, files, room=text.max_position_embeddings)
    similarity, similarity_decision = read_similarity(files.settings, is_multi_vector=family.is_multi_vector)
    matryoshka = matryoshka_dimensions(hf, files.settings, config.pooler_config)
    dimensions, dimensions_decision = default_dimensions(config, files.settings, embedding_size, matryoshka)
    pooled_by = "none: each token has its vector" if family.is_multi_vector else "the model's own, for images and texts"
    patch_size = int(vision.patch_size)
    return ModelInfo(
        name=config.model,
        path=files.folder,
        architecture=architecture,
        model_type=whole.model_type,
        outputs=(Output.TOKEN_VECTORS,) if family.is_multi_vector else (Output.VECTOR,),
        hidden_size=size,
        text=TextSpec(
            max_model_len=longest,
            vocab_size=text.vocab_size,
            lowercases=files.lowercases,
            prompts=files.prompts,
            default_prompt_name=files.default_prompt_name,
            default_input_type="query" if family.is_multi_vector else "document",
        ),
        vector=VectorSpec(
            size=embedding_size,
            similarity=similarity,
            dimensions=dimensions,
            matryoshka_dimensions=matryoshka,
        ),
        pooling=PoolingSpec(
            modes=() if family.is_multi_vector else (PoolingMode.LAST,),
            layers=files.layers.of_sentence,
            normalizes=files.layers.normalizes,
        ),
        images=ImageSpec(
            patch_size=patch_size,
            expansion=_expansion(files, family, length=text.max_position_embeddings),
            searches_images=family.is_multi_vector,
        ),
        config=config,
        decisions=(
            Decision("model", str(files.folder), source),
            Decision("architecture", architecture, "config.json"),
            length_decision,
            Decision("images", f"in patches of {patch_size} x {patch_size} pixels", "config.json"),
            Decision("pooling", pooled_by, "the architecture"),
            similarity_decision,
            dimensions_decision,
            *prompt_decisions(files.prompts, files.default_prompt_name, pools_prompt=True),
        ),
    )


def _read_config(config: ModelConfig, files: SentenceTransformersFiles) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        found: PreTrainedConfig = AutoConfig.from_pretrained(
            files.folder, trust_remote_code=config.trust_remote_code, **config.hf_overrides
        )
    except (OSError, ValueError) as exc:
        raise ModelError(f"transformers cannot read {files.folder / 'config.json'}: {exc}") from exc
    return found


def _expansion(files: SentenceTransformersFiles, family: _Family, *, length: int) -> Expansion | None:
    if family.fills_texts is None:
        return None
    tokenizer = read_object(files.folder / "tokenizer_config.json") or {}
    token = tokenizer.get("pad_token")
    if isinstance(token, Mapping):
        token = token.get("content")
    if not isinstance(token, str):
        raise ModelError(
            f"{files.folder / 'tokenizer_config.json'} has no pad_token, with which this model's texts are filled up. "
            "Fetch the model again."
        )
    side: Literal["left", "right"] = "left" if tokenizer.get("padding_side", family.fills_texts) == "left" else "right"
    return Expansion(length=length, token=token, attends=True, is_fixed=True, side=side)
