"""Loads the reward models that are no classifiers of transformers: heads of their own, and language models' tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from poolkit.engine.heads.classifier import choose_logits
from poolkit.engine.heads.pooling import pool
from poolkit.engine.heads.yes_no import head_rows
from poolkit.engine.loading import load_model
from poolkit.engine.passes.run import Pass, takes_token_types
from poolkit.engine.passes.self_check import choose_pass
from poolkit.errors import ModelError
from poolkit.models import Decision, PoolingMode

if TYPE_CHECKING:
    from poolkit.config import ModelConfig
    from poolkit.engine.passes.segments import Batch
    from poolkit.models import ModelInfo

__all__ = ["load_reward_head", "load_token_scores"]

SCORE = "score."
WEIGHTS = "model.safetensors"


def load_reward_head(
    info: ModelInfo, config: ModelConfig, *, per_token: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Pass, bool, tuple[Decision, ...]]:
    """Load a model with a head like Qwen2.5-Math's: on the last token, as its authors read it, or on every token.

    Returns what gives (sequences, labels), or (tokens, labels) where `per_token`, in float32; whether the model takes
    token types; and what was decided.

    Raises ModelError where the checkpoint has another head.
    """
    head = _load_score(info, device=device)
    model = load_model(info, config, dtype=dtype, device=device)
    run, path = choose_pass(model, info, config)

    def logits(batch: Batch) -> torch.Tensor:
        hidden = run(batch)
        rows = hidden.float() if per_token else pool(hidden, batch.segments, [PoolingMode.LAST])
        return head(rows)  # type: ignore[no-any-return]  # a module call

    read = "every token" if per_token else "the last token"
    return logits, takes_token_types(model), (path, Decision("head", f"the model's own, on {read}", "the architecture"))


def load_token_scores(
    info: ModelInfo, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> tuple[Pass, bool, tuple[Decision, ...]]:
    """Load a language model that scores by the logits of some tokens: of its head only their rows are kept.

    Returns the same as `load_reward_head`, for every token: (tokens, columns).
    """
    model = load_model(info, config, dtype=dtype, device=device, kind="AutoModelForCausalLM")
    with torch.no_grad():
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        rows = head_rows(head, list(info.columns))
    # Where the head is run alone it is in float32 again, and no less exact than the model's own.
    model.set_output_embeddings(rows.to(dtype))  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    run, decisions = choose_logits(model, info, config, per_token=True)
    return run, takes_token_types(model), decisions


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

    index = folder / f"{WEIGHTS}.index.json"
    files = {WEIGHTS}
    if index.is_file():
        places = json.loads(index.read_text("utf-8"))["weight_map"]
        files = {file for name, file in places.items() if name.startswith(prefix)}
    tensors = {}
    for file in sorted(files):
        if not (folder / file).is_file():
            raise ModelError(f"{folder} has no {file}, where the head of the model lies. Fetch the model again.")
        with safe_open(folder / file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                if name.startswith(prefix):
                    tensors[name.removeprefix(prefix)] = opened.get_tensor(name).float()
    return tensors
