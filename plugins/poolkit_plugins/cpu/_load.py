"""Packs a model of transformers, and checks at start-up that the kernels give what transformers gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from poolkit import Batch, Decision, ModelInfo, load_base_model, load_base_with_head
from poolkit_plugins.cpu._backbone import NativeBackbone
from poolkit_plugins.cpu._library import Library
from poolkit_plugins.cpu._self_check import check_batch, compare, split_longest
from poolkit_plugins.cpu.families import STEP, find_reader
from poolkit_plugins.cpu.families._table import NotInTableError, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from poolkit_cpu_kernels import EncoderSpec, LayerTensors
    from transformers import PreTrainedModel

    from poolkit import Pooler, PromptEncoder

    Reference: TypeAlias = Callable[[Batch], NDArray[np.float32]]

__all__ = ["load", "load_with_head"]


def load(info: ModelInfo, library: Library) -> NativeBackbone | str:
    """Load a model without its head, pack it and drop torch's; or return why it cannot be run.

    Raises ModelError where the weights cannot be loaded.
    """
    model = load_base_model(info)

    def run(batch: Batch) -> NDArray[np.float32]:
        return _run_one_by_one(model, batch)

    return _pack(info, library, model, run)


def load_with_head(
    info: ModelInfo, library: Library, *, encoder: PromptEncoder, per_token: bool
) -> tuple[NativeBackbone, Pooler[torch.Tensor]] | str:
    """Load a model with its own head, pack its base and drop torch's; or return why it cannot be run.

    Raises ModelError where the weights cannot be loaded.
    """
    found = load_base_with_head(info, encoder=encoder, per_token=per_token)
    if found is None:
        return "its head cannot be run without the rest of the model"
    base = found.base

    def run(batch: Batch) -> NDArray[np.float32]:
        tokens = found.backbone(batch).tokens
        assert tokens is not None
        return tokens.numpy()

    backbone = _pack(info, library, base, run)
    if isinstance(backbone, str):
        return backbone
    backbone.decisions = (*backbone.decisions, found.decision)
    return backbone, found.pooler


def _pack(info: ModelInfo, library: Library, model: PreTrainedModel, run: Reference) -> NativeBackbone | str:
    """Return a model in the kernels; or why it cannot be run, or what it gives that differs from `run`.

    The weights of `model` are gone afterwards, but for the embedding tables.
    """
    kernels, batch, config = library.kernels, check_batch(info, model), info.config
    cores = torch.get_num_threads()  # those that OMP_NUM_THREADS leaves
    kernels.set_threads((config.threads_per_stream or 1) * (config.num_streams or cores))
    try:
        with torch.inference_mode():
            table = find_reader(info.model_type)(model, info.max_model_len)
            _check_widths(table.spec)
            expected = run(batch)
            encoder = kernels.encoder(replace(table.spec, dtype=library.dtype), table.tensors, _drop_packed(table))
    except NotInTableError as error:
        return str(error)
    if isinstance(encoder, str):
        return encoder
    backbone = NativeBackbone(
        kernels,
        encoder,
        position_offset=info.text.position_offset,
        takes_types=table.tensors.types is not None and len(table.tensors.types) > 1,
        num_streams=cores,
    )
    states = backbone(batch).tokens
    assert states is not None
    found = compare(states, expected, batch, library.dtype)
    if isinstance(found, str):
        backbone.close()
        return f"the self-check: {found}"
    if backbone.shares_prefixes:
        halves, rows = split_longest(batch)
        in_halves = backbone(halves).tokens
        backbone.shares_prefixes = in_halves is not None and np.array_equal(in_halves, states[rows])
    backbone.decisions = (
        *library.decisions,
        Decision("path", "native: packed, without padding", "the self-check: it agrees with transformers in float32"),
        *found,
    )
    return backbone


def _check_widths(spec: EncoderSpec) -> None:
    """Raise NotInTableError where a width is not one that the kernels take."""
    widths = {"head_dim": spec.head_dim, "intermediate size": spec.intermediate, "embedding size": spec.table_columns}
    wrong = {name: width for name, width in widths.items() if width % STEP}
    if wrong:
        listing = " and ".join(f"{name} is {width}" for name, width in wrong.items())
        raise NotInTableError(f"it takes widths that are multiples of {STEP}, and the model's {listing}")


def _drop_packed(table: Table) -> Iterator[LayerTensors]:
    """Yield each layer's tensors, and drop torch's once the kernels have packed them."""
    for layer, tensors in table.layers:
        yield tensors
        layer.to("meta")


def _run_one_by_one(model: PreTrainedModel, batch: Batch) -> NDArray[np.float32]:
    """Run a batch as transformers does, one prompt at a time. (tokens, dim)"""
    arrays = batch.on("cpu")
    types = arrays.token_type_ids
    takes_types = types is not None and (getattr(model.config, "type_vocab_size", None) or 0) > 1
    states = []
    for index, (start, end) in enumerate(zip(arrays.segments.starts, arrays.segments.ends, strict=True)):
        ids = arrays.token_ids[None, start:end]
        mask = torch.ones_like(ids)
        if arrays.attention_lengths is not None:
            mask[:, arrays.attention_lengths[index] :] = 0
        more = {"token_type_ids": types[None, start:end]} if takes_types and types is not None else {}
        states.append(model(input_ids=ids, attention_mask=mask, **more).last_hidden_state[0])
    return torch.cat(states).numpy()
