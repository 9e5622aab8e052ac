"""Peculiarities of some architectures: poolkit's own entries of the table `family`.

CLIP and the like leave out of config.json whatever is transformers' own default, so transformers reads it for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from poolkit.contract import Output
from poolkit.contract.model_files import ModelFamily, ModelFiles
from poolkit.contract.model_specs import Expansion, ImageSpec, PoolingMode
from poolkit.errors import ModelError

__all__ = [
    "CLIP",
    "COLMODERNVBERT",
    "COLPALI",
    "COLQWEN2",
    "DECODER",
    "EVERY_MODELS_OUTPUTS",
    "MPNET",
    "PROCESS_REWARD",
    "QWEN2_PROCESS_REWARD",
    "REWARD",
    "ROBERTA",
    "SIGLIP",
    "SIGLIP2",
]

EVERY_MODELS_OUTPUTS = (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)

POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
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


def _is(*architectures: str) -> Callable[[ModelFiles], bool]:
    return lambda files: files.architecture in architectures


def _after_padding(files: ModelFiles) -> int:
    pad_token_id = files.hf_config.get("pad_token_id")
    # 1 is the padding id that every one of these families was trained with.
    return pad_token_id + 1 if isinstance(pad_token_id, int) else 2


DECODER = ModelFamily(
    matches=lambda files: files.model_type in DECODERS or files.architecture.endswith("ForCausalLM"),
    pooling=PoolingMode.LAST,
)
ROBERTA = ModelFamily(matches=lambda files: files.model_type in POSITIONS_AFTER_PADDING, position_offset=_after_padding)
MPNET = ModelFamily(
    matches=lambda files: files.model_type == "mpnet",
    position_offset=lambda _: 2,  # whatever the padding id: its code knows no other
    adapters={"torch": "poolkit.engine.torch.families.mpnet:MPNET"},
)


def _rewards(files: ModelFiles, *, per_text: bool) -> tuple[Output, ...]:
    of_tokens = files.config.pooler_config.pooling_type in ("ALL", "STEP")
    every = EVERY_MODELS_OUTPUTS[1:] if of_tokens else EVERY_MODELS_OUTPUTS
    return (Output.LOGITS if per_text and not of_tokens else Output.TOKEN_LOGITS, *every)


REWARD = ModelFamily(
    matches=lambda files: files.architecture.endswith("ForRewardModel"),
    num_labels=1,
    outputs=lambda files: _rewards(files, per_text=True),
    adapters={"torch": "poolkit.engine.torch.families.rewards:REWARD_HEAD"},
)
"""Its head's code lies in the model's own repository: https://huggingface.co/Qwen/Qwen2.5-Math-RM-72B."""

PROCESS_REWARD = ModelFamily(
    matches=lambda files: files.architecture.endswith("ForProcessRewardModel"),
    num_labels=2,
    outputs=lambda files: _rewards(files, per_text=False),
    adapters={"torch": "poolkit.engine.torch.families.rewards:REWARD_HEAD"},
)
"""Likewise: https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B."""

QWEN2_PROCESS_REWARD = ModelFamily(
    matches=_is("Qwen2ForProcessRewardModel"),
    step_tag_id=151651,  # <extra_0>, which the model card puts after each step
)


def _vision_config(size: str) -> Callable[[ModelFiles], Mapping[str, object]]:
    """Return what reads the settings that stand in a config's parts; `size` is that of the vectors' width."""

    def read(files: ModelFiles) -> Mapping[str, object]:
        from transformers import AutoConfig

        try:
            whole = AutoConfig.from_pretrained(
                files.folder, trust_remote_code=files.config.trust_remote_code, **files.config.hf_overrides
            )
        except (OSError, ValueError) as exc:
            raise ModelError(f"transformers cannot read {files.folder / 'config.json'}: {exc}") from exc
        parts = getattr(whole, "vlm_config", whole)
        text = parts.get_text_config()
        width = next(value for part in (whole, text) if (value := getattr(part, size, None)) is not None)
        return {
            "hidden_size": width,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_position_embeddings,
            "patch_size": int(parts.vision_config.patch_size),
        }

    return read


def _patches(files: ModelFiles) -> int:
    patch_size = files.hf_config["patch_size"]
    assert isinstance(patch_size, int)
    return patch_size


def _expands_texts(side: Literal["left", "right"]) -> Callable[[ModelFiles], ImageSpec]:
    """Return what reads models whose texts are filled up to the longest there can be, as they were in training.

    They are so on `side`, unless tokenizer_config.json says otherwise.
    """

    def read(files: ModelFiles) -> ImageSpec:
        tokenizer = files.read("tokenizer_config.json")
        token = tokenizer.get("pad_token")
        if isinstance(token, Mapping):
            token = token.get("content")
        if not isinstance(token, str):
            raise ModelError(
                f"{files.folder / 'tokenizer_config.json'} has no pad_token, with which this model's texts are filled "
                "up. Fetch the model again."
            )
        length = files.hf_config["max_position_embeddings"]
        assert isinstance(length, int)
        actual_side: Literal["left", "right"] = "left" if tokenizer.get("padding_side", side) == "left" else "right"
        expansion = Expansion(length=length, token=token, attends=True, is_fixed=True, side=actual_side)
        return ImageSpec(patch_size=_patches(files), expansion=expansion)

    return read


def _one_vector(_: ModelFiles) -> tuple[Output, ...]:
    return (Output.VECTOR,)


def _vector_per_token(_: ModelFiles) -> tuple[Output, ...]:
    return (Output.TOKEN_VECTORS,)


CLIP = ModelFamily(
    matches=_is("CLIPModel"),
    config=_vision_config("projection_dim"),
    outputs=_one_vector,
    pools_itself=True,
    pooling=PoolingMode.LAST,
    images=lambda files: ImageSpec(patch_size=_patches(files)),
    adapters={"torch": "poolkit.engine.torch.families.vision:CLIP"},
)
SIGLIP = ModelFamily(
    matches=_is("SiglipModel"),
    config=_vision_config("projection_size"),
    outputs=_one_vector,
    pools_itself=True,
    pooling=PoolingMode.LAST,
    images=_expands_texts("right"),
    adapters={"torch": "poolkit.engine.torch.families.vision:SIGLIP"},
)
SIGLIP2 = ModelFamily(
    matches=_is("Siglip2Model"),
    config=_vision_config("projection_size"),
    outputs=_one_vector,
    pools_itself=True,
    pooling=PoolingMode.LAST,
    images=_expands_texts("left"),
    adapters={"torch": "poolkit.engine.torch.families.vision:SIGLIP"},
)


def _retriever(architecture: str, *, repeats_bos: bool = False, ends_in_newline: bool = False) -> ModelFamily:
    """Return a family whose models give each token a vector, of an image too; texts are queries."""
    return ModelFamily(
        matches=_is(architecture),
        config=_vision_config("embedding_dim"),
        outputs=_vector_per_token,
        images=lambda files: ImageSpec(
            patch_size=_patches(files),
            searches_images=True,
            repeats_bos=repeats_bos,
            ends_in_newline=ends_in_newline,
        ),
        adapters={"torch": "poolkit.engine.torch.families.vision:IMAGE_RETRIEVER"},
    )


COLPALI = _retriever("ColPaliForRetrieval", repeats_bos=True, ends_in_newline=True)
COLQWEN2 = _retriever("ColQwen2ForRetrieval", ends_in_newline=True)
COLMODERNVBERT = _retriever("ColModernVBertForRetrieval")
