"""Makes tiny models of images and texts with random weights, and pictures for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from checkpoints import HEADS, LAYERS, LONGEST, SPREAD, WIDTH, byte_level
from poolkit import ImagePrompt

__all__ = ["IMAGE_FAMILIES", "RETRIEVERS", "TOWERS", "make_image_model", "picture", "pictures"]

TEXT_LENGTH = 64
"""The longest text of a model with two towers."""
PATCH, SIDE = 8, 32
VECTOR = 24

TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
}
VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "patch_size": PATCH,
}


@dataclass(frozen=True)
class ImageFamily:
    """A recipe for a checkpoint: its special tokens, the two around a text, its config and its processor."""

    specials: Sequence[str]
    around: tuple[str, str]
    config: Callable[[int], transformers.PreTrainedConfig]
    processor: Callable[[transformers.PreTrainedTokenizerFast], transformers.ProcessorMixin]
    architecture: str
    longest: int = TEXT_LENGTH


def make_image_model(folder: Path, family: str) -> Path:
    """Save a checkpoint of `family`, a key of `IMAGE_FAMILIES`, in `folder` and return that."""
    made = IMAGE_FAMILIES[family]
    tokenizer = byte_level(*made.around, tuple(made.specials))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, made.architecture)(made.config(tokenizer.get_vocab_size()))
        for name, weight in model.named_parameters():
            if weight.ndim > 1 or name.endswith("bias"):
                torch.nn.init.normal_(weight, std=SPREAD)
    model.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=made.longest,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=list(made.specials[4:]),
    )
    fast.save_pretrained(folder)
    made.processor(fast).save_pretrained(folder)
    return folder


def picture(width: int, height: int, *, seed: int = 0, form: str = "PNG") -> ImagePrompt:
    """Return a picture of random colours."""
    dice = np.random.default_rng(seed)
    held = BytesIO()
    Image.fromarray(dice.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(held, form)
    return ImagePrompt(held.getvalue())


def pictures() -> list[ImagePrompt]:
    """Return pictures of several shapes, two of one shape among them."""
    shapes = ((40, 60), (100, 50), (32, 32), (40, 60), (61, 47))
    return [picture(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def _clip(vocabulary: int) -> transformers.PreTrainedConfig:
    return transformers.CLIPConfig(
        text_config=_tower_text(vocabulary), vision_config={**VISION, "image_size": SIDE}, projection_dim=VECTOR
    )


def _siglip(vocabulary: int) -> transformers.PreTrainedConfig:
    return transformers.SiglipConfig(text_config=_tower_text(vocabulary), vision_config={**VISION, "image_size": SIDE})


def _siglip2(vocabulary: int) -> transformers.PreTrainedConfig:
    return transformers.Siglip2Config(text_config=_tower_text(vocabulary), vision_config={**VISION, "num_patches": 16})


def _tower_text(vocabulary: int) -> Mapping[str, object]:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}  # transformers takes 2 for CLIP's old mistake
    return {**TEXT, **ids, "vocab_size": vocabulary, "max_position_embeddings": TEXT_LENGTH}


def _decoder(vocabulary: int) -> dict[str, object]:
    return {**TEXT, "vocab_size": vocabulary, "num_key_value_heads": 2, "max_position_embeddings": LONGEST}


def _colpali(vocabulary: int) -> transformers.PreTrainedConfig:
    vlm = transformers.PaliGemmaConfig(
        text_config={**_decoder(vocabulary), "model_type": "gemma", "head_dim": WIDTH // HEADS, "pad_token_id": 0},
        vision_config={
            **VISION,
            "model_type": "siglip_vision_model",
            "image_size": SIDE,
            "projection_dim": WIDTH,
            "vision_use_head": False,
        },
        image_token_index=4,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return transformers.ColPaliConfig(vlm_config=vlm, embedding_dim=VECTOR)


def _colqwen2(vocabulary: int) -> transformers.PreTrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 3]}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    vlm = transformers.Qwen2VLConfig(
        text_config={**_decoder(vocabulary), **ids, "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "embed_dim": WIDTH,
            "hidden_size": WIDTH,
            "num_heads": HEADS,
            "mlp_ratio": 2,
            "patch_size": PATCH,
        },
        image_token_id=4,
        vision_start_token_id=5,
        vision_end_token_id=6,
    )
    return transformers.ColQwen2Config(vlm_config=vlm, embedding_dim=VECTOR)


def _colmodernvbert(vocabulary: int) -> transformers.PreTrainedConfig:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3, "cls_token_id": 1, "sep_token_id": 3}
    vlm = transformers.ModernVBertConfig(
        text_config={
            **TEXT,
            **ids,
            "model_type": "modernbert",
            "vocab_size": vocabulary,
            "max_position_embeddings": LONGEST,
            "local_attention": 16,
        },
        vision_config={**VISION, "model_type": "siglip_vision_model", "image_size": SIDE},
        image_token_id=4,
        pixel_shuffle_factor=2,
    )
    return transformers.ColModernVBertConfig(vlm_config=vlm, embedding_dim=VECTOR)


def _colpali_processor(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.ProcessorMixin:
    images = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = (SIDE // PATCH) ** 2
    return transformers.ColPaliProcessor(images, tokenizer)


def _colqwen2_processor(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.ProcessorMixin:
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}  # in pixels, both
    return transformers.ColQwen2Processor(
        transformers.Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, size=size), tokenizer
    )


def _colmodernvbert_processor(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.ProcessorMixin:
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    return transformers.ColModernVBertProcessor(images, tokenizer, image_seq_len=4)


SPECIALS = ("<pad>", "<bos>", "<unk>", "<eos>")

TOWERS = {
    "clip": ImageFamily(
        SPECIALS,
        ("<bos>", "<eos>"),
        _clip,
        lambda _: transformers.CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        "CLIPModel",
    ),
    "siglip": ImageFamily(
        SPECIALS,
        ("", "<eos>"),
        _siglip,
        lambda _: transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        "SiglipModel",
    ),
    "siglip2": ImageFamily(
        SPECIALS,
        ("", "<eos>"),
        _siglip2,
        lambda _: transformers.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16),
        "Siglip2Model",
    ),
}
RETRIEVERS = {
    "colpali": ImageFamily(
        (*SPECIALS, "<image>"), ("", ""), _colpali, _colpali_processor, "ColPaliForRetrieval", LONGEST
    ),
    "colqwen2": ImageFamily(
        (*SPECIALS, *(f"<|{name}|>" for name in ("image_pad", "vision_start", "vision_end", "im_start", "im_end"))),
        ("", ""),
        _colqwen2,
        _colqwen2_processor,
        "ColQwen2ForRetrieval",
        LONGEST,
    ),
    "colmodernvbert": ImageFamily(
        (
            *SPECIALS,
            *("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<|begin_of_text|>"),
            *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
        ),
        ("<bos>", "<eos>"),
        _colmodernvbert,
        _colmodernvbert_processor,
        "ColModernVBertForRetrieval",
        LONGEST,
    ),
}
IMAGE_FAMILIES = {**TOWERS, **RETRIEVERS}
