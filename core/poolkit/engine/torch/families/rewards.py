"""Reward models with a head of their own, which is no classifier of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from poolkit.contract import Decision, PooledRows
from poolkit.engine.lm_heads import find_tensors
from poolkit.engine.poolers.pooling import pool, pool_last
from poolkit.engine.torch.backbone import TorchBackbone
from poolkit.engine.torch.families.family import TorchFamily
from poolkit.engine.torch.loading import load_weights
from poolkit.engine.torch.self_check import choose_forward
from poolkit.errors import ModelError

if TYPE_CHECKING:
    from poolkit.contract import Backbone, Batch, ModelInfo, Pooler, PromptEncoder, States
    from poolkit.engine.torch.loading import Placement

__all__ = ["REWARD_HEAD"]

SCORE = "score."


class RewardPooler:
    """Runs a head like Qwen2.5-Math's: on the last token, as its authors read it, or on every token."""

    def __init__(self, head: torch.nn.Sequential, *, per_token: bool) -> None:
        self._head = head
        self._per_token = per_token

    def __call__(self, states: States[torch.Tensor], batch: Batch, /) -> PooledRows[torch.Tensor]:
        """Return the logits of each prompt, or of each of its tokens."""
        hidden = states.tokens
        assert hidden is not None
        if self._per_token:
            return PooledRows(self._head(hidden.float()), batch.segments.sizes)
        return PooledRows(self._head(pool(hidden, batch.segments, batch, [pool_last])))


def _load_reward_head(
    info: ModelInfo,
    placement: Placement,
    *,
    encoder: PromptEncoder,  # noqa: ARG001 - of the protocol
    per_token: bool,
) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
    pooler = RewardPooler(_load_score(info, device=placement.device), per_token=per_token)
    model = load_weights(info, placement)
    forward, path = choose_forward(model, info)
    read = "every token" if per_token else "the last token"
    head = Decision("head", f"the model's own, on {read}", "the architecture")
    decisions = (*placement.decisions, path, head)
    return TorchBackbone({"text": forward}, decisions=decisions, base=model), pooler


def _load_score(info: ModelInfo, *, device: torch.device) -> torch.nn.Sequential:
    """Load two linear layers with ReLU between them, in float32."""
    width = info.hidden_size
    head = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, info.num_labels))
    weights = _read_tensors(info.path, SCORE)
    found, expected = (
        {name: tuple(tensor.shape) for name, tensor in sorted(tensors.items())}
        for tensors in (weights, head.state_dict())
    )
    if found != expected:
        raise ModelError(
            f"The head of {info.name} ({info.architecture}) has {found or 'no weights'} under {SCORE!r} in "
            f"{info.path}; poolkit runs one with {expected}."
        )
    head.load_state_dict(weights)
    return head.to(device).requires_grad_(requires_grad=False)


def _read_tensors(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with `prefix`, named without it, in float32."""
    from safetensors import safe_open

    tensors = {}
    for name, path in find_tensors(folder, prefix=prefix).items():
        with safe_open(path, framework="pt") as opened:
            tensors[name.removeprefix(prefix)] = opened.get_tensor(name).float()
    return tensors


REWARD_HEAD = TorchFamily(load_head=_load_reward_head)
"""Reward models with a head of two layers, which transformers does not have."""
