"""Gives a task's head what a language model has on top of its base: hidden states in, logits out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poolkit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from poolkit.contract import HeadContext, ModelInfo

__all__ = ["find_tensors", "head_rows", "load_causal_lm_rows", "load_masked_lm_head"]

WEIGHTS = "model.safetensors"


def load_masked_lm_head(context: HeadContext) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load the masked-LM head of a checkpoint, in float32, with everything that transformers has in it.

    The function that is returned turns (rows, hidden) into (rows, vocabulary). That is large: give it the hidden states
    of a few prompts at a time.

        def create_head(context):
            to_logits = load_masked_lm_head(context)

            def pool(states, batch):
                parts = states.segments.split(states.tokens)
                return PooledRows(torch.stack([to_logits(part).amax(0).relu().log1p() for part in parts]))

            return pool

    Raises ModelError where the checkpoint has no such head.
    """
    import torch

    from poolkit.engine.torch.loading import Placement, load_weights
    from poolkit.engine.torch.split import detach_base

    placement = Placement(torch.device("cpu"), torch.float32, ())
    head = load_weights(context.model, placement, kind="AutoModelForMaskedLM")
    detach_base(head)
    torch.nn.Module.to(head, context.device)

    def to_logits(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(inputs_embeds=hidden.float()[None]).logits  # (1, rows, vocabulary)
        return logits[0]

    return to_logits


def load_causal_lm_rows(context: HeadContext, token_ids: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load the rows of a causal LM's output layer that give the logits of some tokens, in float32.

    The function that is returned turns (rows, hidden) into (rows, tokens). Nothing else of the weights is read, however
    many files they are in; the layer may be the input embeddings (tied weights). Whatever else the model does with its
    logits is done to these.

        def create_head(context):
            to_logits = load_causal_lm_rows(context, [context.encoder.token_id(word) for word in ("yes", "no")])

            def pool(states, batch):
                last = batch.on(context.device).segments.ends - 1
                return PooledRows(to_logits(states.tokens[last]))

            return pool

    Raises ModelError where the checkpoint has no such layer, or a token is not in the vocabulary.
    """
    import torch

    from poolkit.engine.torch.loading import read_config
    from poolkit.engine.torch.split import detach_base

    info, ids = context.model, list(token_ids)
    outside = [token_id for token_id in ids if not 0 <= token_id < info.vocab_size]
    if outside:
        raise ModelError(f"There is no token {outside[0]} in {info.name}; its ids go from 0 to {info.vocab_size - 1}.")
    import transformers

    settings = read_config(info)
    with torch.device("meta"):
        head = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # transformers' own
            settings, trust_remote_code=info.config.trust_remote_code
        ).eval()
    layer = head.get_output_embeddings()
    names = [name for name, module in head.named_modules(remove_duplicate=False) if module is layer]
    if getattr(settings.get_text_config(), "tie_word_embeddings", False):
        embeddings = head.get_input_embeddings()
        names += [name for name, module in head.named_modules(remove_duplicate=False) if module is embeddings]
    prefix = f"{head.base_model_prefix}."
    names += [name.removeprefix(prefix) for name in names]  # as a checkpoint of the base alone has it
    rows = torch.nn.Linear(layer.weight.shape[1], len(ids), bias=layer.bias is not None)
    with torch.no_grad():
        rows.weight.copy_(_read_rows(info, [f"{name}.weight" for name in names], ids))
        if layer.bias is not None:
            rows.bias.copy_(_read_rows(info, [f"{name}.bias" for name in names], ids))
    detach_base(head)
    head.set_output_embeddings(rows)
    torch.nn.Module.to(head, context.device)

    def to_logits(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(inputs_embeds=hidden.float()[None], use_cache=False).logits  # (1, rows, tokens)
        return logits[0]

    return to_logits


def _read_rows(info: ModelInfo, names: Sequence[str], ids: Sequence[int]) -> torch.Tensor:
    """Return some rows of the first of these tensors that the checkpoint has, in float32."""
    import torch
    from safetensors import safe_open

    files = find_tensors(info.path)
    name = next((name for name in names if name in files), None)
    if name is None:
        raise ModelError(
            f"The weights in {info.path} have no {names[0]}, the output layer of {info.architecture}. Fetch the model "
            "again; other formats than safetensors are not read."
        )
    with safe_open(files[name], framework="pt") as opened:
        tensor = opened.get_slice(name)
        return torch.stack([tensor[token_id] for token_id in ids]).float()


def find_tensors(folder: Path, *, prefix: str = "") -> Mapping[str, Path]:
    """Return the safetensors file of each tensor of a checkpoint whose name begins with `prefix`.

    Raises ModelError where one of the files is missing.
    """
    from safetensors import safe_open

    index, whole = folder / f"{WEIGHTS}.index.json", folder / WEIGHTS
    if index.is_file():
        files = json.loads(index.read_text("utf-8"))["weight_map"]
        found = {name: folder / file for name, file in files.items() if name.startswith(prefix)}
    else:
        found = {prefix: whole}
    for path in found.values():
        if not path.is_file():
            raise ModelError(f"{folder} has no {path.name}, where the head of the model lies. Fetch the model again.")
    if index.is_file():
        return found
    with safe_open(whole, framework="pt") as opened:
        return {name: whole for name in opened.keys() if name.startswith(prefix)}  # noqa: SIM118 - it is no mapping


def head_rows(head: torch.nn.Module, ids: Sequence[int]) -> torch.nn.Linear:
    """Return the part of a model's head that gives the logits of some tokens, in float32."""
    import torch

    weight, bias = head.weight, getattr(head, "bias", None)
    assert isinstance(weight, torch.Tensor)
    rows = torch.nn.Linear(weight.shape[1], len(ids), bias=bias is not None, device=weight.device)
    with torch.no_grad():
        rows.weight.copy_(weight[list(ids)])
        if isinstance(bias, torch.Tensor):
            rows.bias.copy_(bias[list(ids)])
    return rows
