"""What the hidden states of a BGE-M3 become: FlagEmbedding's arithmetic, without a padded token."""

from __future__ import annotations

from dataclasses import dataclass
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import linear, normalize

from poolkit import Head, ModelInfo, Pooled
from poolkit.errors import ModelError
from poolkit_bge_m3.files import COLBERT_LINEAR, SPARSE_LINEAR
from poolkit_bge_m3.parts import MULTI_VECTOR, TOKEN_WEIGHTS

if TYPE_CHECKING:
    from poolkit import Segments

__all__ = ["M3Head", "create_head"]

UNWEIGHTED_TOKENS = ("cls_token", "eos_token", "pad_token", "unk_token")
"""The special tokens that say nothing of a text. FlagEmbedding weighs the others."""


@dataclass(frozen=True, slots=True)
class Linear:
    """The weights of one linear layer, in float32."""

    weight: torch.Tensor  # (out, hidden)
    bias: torch.Tensor  # (out,)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the projected rows. (tokens, hidden) -> (tokens, out)"""
        return linear(rows, self.weight, self.bias)


def create_head(info: ModelInfo, *, device: torch.device) -> Head:
    """Return the head of a model, its two layers read from their files.

    Raises:
        ModelError: a file cannot be read, or holds no linear layer of the model's width.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(info.path)
    special = tokenizer.special_tokens_map
    unweighted = [tokenizer.convert_tokens_to_ids(special[name]) for name in UNWEIGHTED_TOKENS if name in special]
    return M3Head(
        sparse=_load_linear(info, SPARSE_LINEAR, device=device),
        colbert=_load_linear(info, COLBERT_LINEAR, device=device),
        unweighted=torch.tensor(unweighted, device=device),
    )


class M3Head:
    """Gives the first token's hidden state, a weight for each token, and a vector for each token but the first."""

    def __init__(self, *, sparse: Linear, colbert: Linear, unweighted: torch.Tensor) -> None:
        self._sparse = sparse
        self._colbert = colbert
        self._unweighted = unweighted  # token ids

    def __call__(self, hidden: torch.Tensor, token_ids: torch.Tensor, segments: Segments, /) -> list[Pooled]:
        """Return one `Pooled` per segment, its parts as `parts` describes them."""
        rows = hidden.float()  # (tokens, hidden)
        weights = self._sparse(rows).relu().squeeze(1)  # (tokens,)
        weights = weights.where(~torch.isin(token_ids, self._unweighted), 0)
        vectors = normalize(self._colbert(rows), dim=-1)  # (tokens, dim)
        return [
            Pooled(of_segment[0], {TOKEN_WEIGHTS: token_weights, MULTI_VECTOR: token_vectors[1:]})
            for of_segment, token_weights, token_vectors in zip(
                *(segments.split(part) for part in (rows, weights, vectors)), strict=True
            )
        ]


def _load_linear(info: ModelInfo, name: str, *, device: torch.device) -> Linear:
    path = info.path / name
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as exc:
        raise ModelError(f"{path} cannot be read: {exc}. Fetch the model again.") from exc
    shapes = {key: tuple(value.shape) for key, value in state.items()} if isinstance(state, dict) else {}
    weight, bias = shapes.get("weight", ()), shapes.get("bias", ())
    is_linear = len(weight) == 2 and weight[1] == info.hidden_size and bias == weight[:1]
    if not is_linear or (name == SPARSE_LINEAR and weight[0] != 1):
        out = "1" if name == SPARSE_LINEAR else "dim"
        raise ModelError(
            f"{path} holds {shapes or type(state).__name__}; it must hold a weight of shape "
            f"({out}, {info.hidden_size}) and a bias of shape ({out},). Fetch the model again."
        )
    return Linear(state["weight"].float().to(device), state["bias"].float().to(device))
