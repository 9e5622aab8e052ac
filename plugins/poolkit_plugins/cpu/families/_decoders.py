"""Decoders: Llama and what is built like it, Mistral, Qwen2, Qwen3, and Gemma 1 to 3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from poolkit_cpu_kernels import ALL, EncoderSpec, EncoderTensors, LayerTensors

from poolkit_plugins.cpu.families._table import (
    Table,
    find_activation,
    linear,
    read_rope,
    read_tables,
    require,
    to_array,
)

if TYPE_CHECKING:
    from poolkit_plugins.cpu.families._table import Float32

__all__ = ["read_decoder"]

GEMMA = ("gemma", "gemma2", "gemma3_text")
"""Their embeddings are scaled, and 1 is added to the weights of their norms."""


def read_decoder(model: Any, positions: int) -> Table:  # noqa: ANN401 - classes of transformers
    """Read a decoder, be it causal or one that was trained to see all tokens."""
    config, first = model.config, model.layers[0]
    softcap = getattr(config, "attn_logit_softcapping", None)
    require(softcap is None, "its table has no softcapping of attention")
    is_gemma = config.model_type in GEMMA
    tables, table_dtype = read_tables(words=model.embed_tokens)
    spec = EncoderSpec(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=first.self_attn.head_dim,
        intermediate=config.intermediate_size,
        layers=len(model.layers),
        norm="rms",
        order="sandwich" if hasattr(first, "pre_feedforward_layernorm") else "pre",
        activation=find_activation(getattr(config, "hidden_activation", None) or config.hidden_act),
        gated=True,
        norm_qk=hasattr(first.self_attn, "q_norm"),
        table_dtype=table_dtype,
        epsilon=config.rms_norm_eps,
        embedding_scale=float(model.embed_tokens.embed_scale) if is_gemma else 1.0,
    )
    kinds = getattr(config, "layer_types", None) or [""] * spec.layers
    by_kind = isinstance(model.rotary_emb.rope_type, dict)
    ropes = {
        kind: read_rope(model.rotary_emb, positions, spec.head_dim, kind if by_kind else "")
        for kind in dict.fromkeys(kinds)
    }

    def weight(module: Any) -> Float32:  # noqa: ANN401 - norms of many classes
        return to_array(module.weight.float() + 1 if is_gemma else module.weight)

    def layers() -> Iterator[tuple[torch.nn.Module, LayerTensors]]:
        for layer, kind in zip(model.layers, kinds, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            before, after = _window(config, attention, kind)
            yield (
                layer,
                LayerTensors(
                    **linear("q", attention.q_proj),
                    **linear("k", attention.k_proj),
                    **linear("v", attention.v_proj),
                    **linear("output", attention.o_proj),
                    **linear("gate", mlp.gate_proj),
                    **linear("up", mlp.up_proj),
                    **linear("down", mlp.down_proj),
                    **_norms(layer, weight),
                    rope=ropes[kind],
                    scale=attention.scaling,
                    before=before,
                    after=after,
                ),
            )

    return Table(spec, EncoderTensors(**tables, final_norm_weight=weight(model.norm)), layers())


def _norms(layer: Any, weight: Any) -> dict[str, Any]:  # noqa: ANN401 - classes of transformers
    attention = layer.self_attn
    heads = (
        {"q_norm_weight": weight(attention.q_norm), "k_norm_weight": weight(attention.k_norm)}
        if hasattr(attention, "q_norm")
        else {}
    )
    norms = {"attention_norm_weight": weight(layer.input_layernorm), **heads}
    if not hasattr(layer, "pre_feedforward_layernorm"):
        return {**norms, "ffn_norm_weight": weight(layer.post_attention_layernorm)}
    return {
        **norms,
        "after_attention_weight": weight(layer.post_attention_layernorm),
        "ffn_norm_weight": weight(layer.pre_feedforward_layernorm),
        "after_ffn_weight": weight(layer.post_feedforward_layernorm),
    }


def _window(config: Any, attention: Any, kind: str) -> tuple[int, int]:  # noqa: ANN401 - classes of transformers
    """Return how many tokens before and after itself a token sees."""
    # Mistral has one window for all layers, others one for some: each attention knows its own.
    width = getattr(attention, "sliding_window", None) if kind else getattr(config, "sliding_window", None)
    if getattr(config, "is_causal", True) is False:  # transformers' mask for it counts the window's edge in
        return (ALL, ALL) if width is None else (width, width)
    before = ALL if width is None else width - 1
    return before, 0 if attention.is_causal else before
