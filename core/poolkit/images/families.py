"""The families of models that read images: entries of the table `family`.

Their config.json leaves out whatever is transformers' own default, so transformers reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from poolkit.contract import Expansion, ModelFamily, ModelFiles, Output, PoolingMode
from poolkit.errors import ModelError

__all__ = ["CLIP", "COLMODERNVBERT", "COLPALI", "COLQWEN2", "SIGLIP", "SIGLIP2", "ImageSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """The images of a model that reads images and texts.

    Attributes:
        patch_size: of the squares that it cuts an image into, in pixels a side.
        is_retriever: True if texts are queries that search images, in a frame of their own.
        repeats_bos: True if such a query starts with the tokenizer's bos_token once more.
        ends_in_newline: True if such a query ends in a newline.
    """

    patch_size: int
    is_retriever: bool = False
    repeats_bos: bool = False
    ends_in_newline: bool = False

    def __str__(self) -> str:
        """Return the start-up report's words for it."""
        return f"in patches of {self.patch_size} x {self.patch_size} pixels"


def _whole_config(size: str) -> Callable[[ModelFiles], Mapping[str, object]]:
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


def _patch_size(files: ModelFiles) -> int:
    patch_size = files.hf_config["patch_size"]
    assert isinstance(patch_size, int)
    return patch_size


def _expansion(side: Literal["left", "right"]) -> Callable[[ModelFiles], Expansion]:
    """Return what reads models whose texts are filled up to the longest there can be, as they were in training.

    They are so on `side`, unless tokenizer_config.json says otherwise.
    """

    def read(files: ModelFiles) -> Expansion:
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
        return Expansion(length=length, token=token, attends=True, is_fixed=True, side=actual_side)

    return read


def _two_towers(
    architecture: str, width: str, adapter: str, *, expansion: Callable[[ModelFiles], Expansion] | None = None
) -> ModelFamily:
    """Return a family whose models give a text and an image one vector each, in one space.

    Args:
        architecture: of config.json.
        width: the key of the vectors' width there.
        adapter: its name in `poolkit.images.adapters`.
        expansion: how texts are filled up.
    """
    return ModelFamily(
        matches=lambda files: files.architecture == architecture,
        config=_whole_config(width),
        outputs=lambda _: (Output.VECTOR,),
        pools_itself=True,
        pooling=PoolingMode.LAST,
        modalities={"image": lambda files: ImageSpec(patch_size=_patch_size(files))},
        expansion=expansion,
        adapters={"torch": f"poolkit.images.adapters:{adapter}"},
    )


CLIP = _two_towers("CLIPModel", "projection_dim", "CLIP")
SIGLIP = _two_towers("SiglipModel", "projection_size", "SIGLIP", expansion=_expansion("right"))
SIGLIP2 = _two_towers("Siglip2Model", "projection_size", "SIGLIP", expansion=_expansion("left"))


def _retriever(architecture: str, *, repeats_bos: bool = False, ends_in_newline: bool = False) -> ModelFamily:
    """Return a family whose models give each token a vector, of an image too; texts are queries."""
    return ModelFamily(
        matches=lambda files: files.architecture == architecture,
        config=_whole_config("embedding_dim"),
        outputs=lambda _: (Output.TOKEN_VECTORS,),
        pools_itself=True,
        modalities={
            "image": lambda files: ImageSpec(
                patch_size=_patch_size(files),
                is_retriever=True,
                repeats_bos=repeats_bos,
                ends_in_newline=ends_in_newline,
            )
        },
        only_queries=True,
        adapters={"torch": "poolkit.images.adapters:IMAGE_RETRIEVER"},
    )


COLPALI = _retriever("ColPaliForRetrieval", repeats_bos=True, ends_in_newline=True)
COLQWEN2 = _retriever("ColQwen2ForRetrieval", ends_in_newline=True)
COLMODERNVBERT = _retriever("ColModernVBertForRetrieval")
