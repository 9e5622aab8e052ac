"""From the hidden states of a BGE-M3 to its three outputs: FlagEmbedding's arithmetic, without a padded token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import linear, normalize

from poolkit import HeadContext, ModelInfo, PooledRows
from poolkit.errors import ModelError
from poolkit_bge_m3.files import COLBERT_LINEAR, SPARSE_LINEAR
from poolkit_bge_m3.parts import MULTI_VECTOR, TOKEN_WEIGHTS

if TYPE_CHECKING:
    from poolkit import Batch, States

__all__ = ["M3Head", "create_head"]

UNWEIGHTED_TOKENS = ("<s>", "</s>", "<pad>", "<unk>")
"""XLM-RoBERTa's special tokens that say nothing of a text. FlagEmbedding weighs the others."""


MORE_THAN_ANY_ID = 1 << 32


@dataclass(frozen=True, slots=True)
class Linear:
    """The weights of one linear layer, in float32."""

    weight: torch.Tensor  # (out, hidden)
    bias: torch.Tensor  # (out,)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the projected rows. (tokens, hidden) -> (tokens, out)"""
        return linear(rows, self.weight, self.bias)


def create_head(context: HeadContext) -> M3Head:
    """Return the head of a model, its two layers read from their files.

    Raises:
        ModelError: a file cannot be read, or holds no linear layer of the model's width.
    """
    found = map(context.encoder.token_id, UNWEIGHTED_TOKENS)
    return M3Head(
        sparse=_load_linear(context.model, SPARSE_LINEAR, device=context.device),
        colbert=_load_linear(context.model, COLBERT_LINEAR, device=context.device),
        unweighted=[token_id for token_id in found if token_id is not None],
    )


class M3Head:
    """Gives the first token's hidden state, a weight for each token of the vocabulary, and a vector for each token."""

    def __init__(self, *, sparse: Linear, colbert: Linear, unweighted: Sequence[int]) -> None:
        self._sparse = sparse
        self._colbert = colbert
        self._unweighted = unweighted  # token ids

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:
        """Return the first tokens' hidden states, with the parts as `parts` describes them."""
        assert states.tokens is not None
        arrays = batch.on(states.tokens.device)
        starts, sizes = arrays.segments.starts, batch.segments.sizes
        rows = states.tokens.float()  # (tokens, hidden)
        vectors = normalize(self._colbert(rows), dim=-1)  # (tokens, dim)
        is_first = torch.zeros(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, starts, True)
        return PooledRows(
            rows[starts],
            parts={
                TOKEN_WEIGHTS: self._weigh(rows, batch),
                MULTI_VECTOR: PooledRows(vectors[~is_first], [size - 1 for size in sizes]),
            },
        )

    def _weigh(self, rows: torch.Tensor, batch: Batch) -> PooledRows[torch.Tensor]:
        """Return the highest weight above zero of each token id that a text holds."""
        arrays = batch.on(rows.device)
        weights = self._sparse(rows).relu().squeeze(1)  # (tokens,)
        unweighted = torch.tensor(self._unweighted, dtype=torch.long, device=rows.device)
        weights = weights.where(~torch.isin(arrays.token_ids, unweighted), 0)
        ids_of_texts = arrays.segments.segment_ids * MORE_THAN_ANY_ID + arrays.token_ids
        # In order of the texts, then of the ids.
        distinct, places = torch.unique(ids_of_texts, return_inverse=True)
        highest = weights.new_zeros(len(distinct)).scatter_reduce(0, places, weights, reduce="amax")
        distinct, highest = distinct[highest > 0], highest[highest > 0]
        counts = (distinct // MORE_THAN_ANY_ID).bincount(minlength=len(batch))
        return PooledRows(highest, counts.tolist(), distinct % MORE_THAN_ANY_ID)


def _load_linear(info: ModelInfo, name: str, *, device: str) -> Linear:
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
