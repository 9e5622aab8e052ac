"""Encoders with rotary positions: ModernBERT, and the BERTs NomicBERT, GTE and Jina embeddings v3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from poolkit_cpu_kernels import ALL, EncoderSpec, EncoderTensors, LayerTensors

from poolkit_plugins.cpu.families._table import (
    Table,
    bias_of,
    find_activation,
    linear,
    norm,
    read_rope,
    read_tables,
    weight_of,
)

if TYPE_CHECKING:
    pass

__all__ = ["read_modernbert", "read_rotary_bert"]


def read_rotary_bert(model: Any, positions: int) -> Table:  # noqa: ANN401 - classes of transformers
    """Read NomicBERT, GTE and Jina embeddings v3: BERT with rotary positions, its feed-forward network gated or not."""
    config, embeddings = model.config, model.embeddings
    tables, table_dtype = read_tables(words=embeddings.word_embeddings, types=embeddings.token_type_embeddings)
    first = model.layers[0]
    is_gated = hasattr(first.mlp, "gate_proj")
    spec = EncoderSpec(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        head_dim=first.self_attn.head_dim,
        intermediate=config.intermediate_size,
        layers=len(model.layers),
        activation=find_activation(config.hidden_act),
        gated=is_gated,
        table_dtype=table_dtype,
        epsilon=embeddings.LayerNorm.eps,
    )
    rope = read_rope(model.rotary_emb, positions, spec.head_dim)

    def layers() -> Iterator[tuple[torch.nn.Module, LayerTensors]]:
        for layer in model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            gated = is_gated and {
                **linear("gate", mlp.gate_proj),
                **linear("up", mlp.up_proj),
                **linear("down", mlp.down_proj),
            }
            yield (
                layer,
                LayerTensors(
                    **linear("q", attention.q_proj),
                    **linear("k", attention.k_proj),
                    **linear("v", attention.v_proj),
                    **linear("output", attention.o_proj),
                    **norm("attention_norm", layer.post_attention_layernorm),
                    **(gated or {**linear("up", mlp.fc1), **linear("down", mlp.fc2)}),
                    **norm("ffn_norm", layer.post_mlp_layernorm),
                    rope=rope,
                    scale=attention.scaling,
                ),
            )

    return Table(spec, EncoderTensors(**tables, **norm("norm", embeddings.LayerNorm)), layers())


def read_modernbert(model: Any, positions: int) -> Table:  # noqa: ANN401 - classes of transformers
    """Read ModernBERT: norms before attention and feed-forward network, and layers that see only what is near."""
    config, embeddings = model.config, model.embeddings
    tables, table_dtype = read_tables(words=embeddings.tok_embeddings)
    spec = EncoderSpec(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        layers=len(model.layers),
        order="pre",
        activation=find_activation(config.hidden_activation),
        gated=True,
        table_dtype=table_dtype,
        epsilon=config.norm_eps,
    )
    kinds = config.layer_types
    ropes = {kind: read_rope(model.rotary_emb, positions, spec.head_dim, kind) for kind in dict.fromkeys(kinds)}

    def layers() -> Iterator[tuple[torch.nn.Module, LayerTensors]]:
        for layer, kind in zip(model.layers, kinds, strict=True):
            reach = config.sliding_window if kind == "sliding_attention" else ALL
            yield (
                layer,
                LayerTensors(
                    **_thirds(layer.attn.Wqkv),
                    **linear("output", layer.attn.Wo),
                    **norm("attention_norm", layer.attn_norm),
                    **_halves(layer.mlp.Wi),
                    **linear("down", layer.mlp.Wo),
                    **norm("ffn_norm", layer.mlp_norm),
                    rope=ropes[kind],
                    scale=spec.head_dim**-0.5,
                    before=reach,
                    after=reach,
                ),
            )

    tensors = EncoderTensors(**tables, **norm("norm", embeddings.norm), **norm("final_norm", model.final_norm))
    return Table(spec, tensors, layers())


def _thirds(module: Any) -> dict[str, Any]:  # noqa: ANN401 - classes of transformers
    """Return queries', keys' and values' part of a layer that makes all three."""
    return _parts(module, ("q", "k", "v"))


def _halves(module: Any) -> dict[str, Any]:  # noqa: ANN401 - classes of transformers
    """Return both parts of a gated layer: what is activated, and what it multiplies."""
    return _parts(module, ("gate", "up"))


def _parts(module: Any, names: tuple[str, ...]) -> dict[str, Any]:  # noqa: ANN401 - ditto
    weight, bias = weight_of(module), bias_of(module)
    rows = len(weight) // len(names)
    found: dict[str, Any] = {}
    for index, name in enumerate(names):
        part = slice(index * rows, (index + 1) * rows)
        found[f"{name}_weight"] = weight[part]
        found[f"{name}_bias"] = None if bias is None else bias[part]
    return found
