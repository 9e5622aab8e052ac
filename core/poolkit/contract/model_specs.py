"""What stands between a model's base and its answers, as data: layers, and how a multi-vector model reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "DenseSpec",
    "Expansion",
    "ImageSpec",
    "InputType",
    "LayerMixSpec",
    "LayerNormSpec",
    "LayerSpec",
    "MultiVectorSpec",
    "NormalizeSpec",
]

InputType: TypeAlias = Literal["query", "document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSpec:
    """A dense layer: where its weights lie and what is applied to what it gives.

    Attributes:
        folder: holds the weights.
        in_features: width of the rows it takes.
        out_features: width of the rows it gives.
        bias: whether it has one.
        activation: a class of torch.nn; allow-listed when read.
        has_residual: whether the row it takes is added to the row it gives, by a matrix where their widths differ.
        only_for: the input type whose rows it takes; the others pass by. None for all.
    """

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    has_residual: bool = False
    only_for: InputType | None = None

    def __str__(self) -> str:
        """What the start-up report says of it."""
        residual = ", added to what it takes" if self.has_residual else ""
        return f"{self.in_features} to {self.out_features}, {self.activation}{residual}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNormSpec:
    """A LayerNorm with weights of its own. See `DenseSpec` for what the names stand for."""

    folder: Path
    size: int
    only_for: InputType | None = None

    def __str__(self) -> str:
        """What the start-up report says of it."""
        return f"LayerNorm of {self.size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeSpec:
    """Rows are divided by their L2 norm, before further layers. See `DenseSpec` for what `only_for` stands for."""

    folder: Path
    only_for: InputType | None = None

    def __str__(self) -> str:
        """What the start-up report says of it."""
        return "Normalize"


LayerSpec: TypeAlias = DenseSpec | LayerNormSpec | NormalizeSpec
"""One step from hidden states to vectors, row by row."""


@dataclass(frozen=True, slots=True)
class LayerMixSpec:
    """Token vectors are a weighted mean over the base's layers, from `first` on (0: the embeddings).

    `folder` holds the weights.
    """

    folder: Path
    first: int


@dataclass(frozen=True, slots=True)
class Expansion:
    """How short texts are filled up: a multi-vector model's queries, where each filler has a vector of its own.

    Attributes:
        length: of a text, once it is filled up.
        token: what they are filled up with.
        attends: whether the text's own tokens see the fillers.
        is_fixed: whether no text may be longer than `length`.
        side: where the fillers stand.
    """

    length: int
    token: str
    attends: bool
    is_fixed: bool
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiVectorSpec:
    """How a multi-vector model (ColBERT and its kin) reads queries and documents, and which vectors it answers.

    Attributes:
        query_length: the longest query in tokens, special tokens and marker included.
        document_length: the longest document, likewise.
        expansion: how short queries are filled up; None where they are not.
        markers: put before texts by the model's prompts: each is one token, whatever the tokenizer's own rules make
            of it in a text.
        skiplist: tokens whose vectors are not answered.
        skips_in: the input types that the skiplist holds for.
        kept_token_ids: the only tokens whose vectors a document answers; () for all.
    """

    query_length: int
    document_length: int
    expansion: Expansion | None = None
    markers: tuple[str, ...] = ()
    skiplist: tuple[str, ...] = ()
    skips_in: tuple[str, ...] = ("document",)
    kept_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How a model that reads images and texts does so.

    Attributes:
        patch_size: of the squares that it cuts an image into, in pixels a side.
        expansion: how every text is filled up, as it was in training; None where none is.
        searches_images: whether it reads texts as queries alone, and only images are documents.
    """

    patch_size: int
    expansion: Expansion | None = None
    searches_images: bool = False
