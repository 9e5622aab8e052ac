"""BERT and what is built like it: learned positions, a norm after attention and after the feed-forward network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from poolkit_cpu_kernels import EncoderSpec, EncoderTensors, LayerTensors

from poolkit_plugins.cpu.families._table import (
    Table,
    find_activation,
    linear,
    norm,
    read_tables,
    require,
    to_array,
)

__all__ = ["read_bert", "read_distilbert", "read_mpnet"]

MPNET_REACH = 128
"""MPNet tells no distances apart beyond it."""


def read_bert(model: Any, _: int) -> Table:  # noqa: ANN401 - classes of transformers
    """Read BERT, RoBERTa, XLM-RoBERTa, CamemBERT and ELECTRA."""
    require(not model.config.is_decoder, "its table has no BERT that is a decoder")

    def layers() -> Iterator[tuple[torch.nn.Module, LayerTensors]]:
        for layer in model.encoder.layer:
            attention, output = layer.attention.self, layer.attention.output
            products = (attention.query, attention.key, attention.value, output.dense)
            yield _layer(layer, products, output.LayerNorm, head_dim=attention.attention_head_size)

    project = getattr(model, "embeddings_project", None)
    more = {} if project is None else linear("projection", project)
    return _table(model, model.encoder.layer, layers(), activation=model.config.hidden_act, more=more)


def read_mpnet(model: Any, _: int) -> Table:  # noqa: ANN401 - classes of transformers
    """Read MPNet, whose scores get a learned bias by distance."""

    def layers() -> Iterator[tuple[torch.nn.Module, LayerTensors]]:
        for layer in model.encoder.layer:
            attention = layer.attention.attn
            products = (attention.q, attention.k, attention.v, attention.o)
            yield _layer(layer, products, layer.attention.LayerNorm, head_dim=attention.attention_head_size)

    square = model.encoder.compute_position_bias(torch.zeros(1, 2 * MPNET_REACH + 1, 1))  # (1, heads, query, key)
    more = {"position_bias": to_array(square[0, :, MPNET_REACH])}
    activation = model.config.hidden_act
    return _table(model, model.encoder.layer, layers(), activation=activation, more=more, reach=MPNET_REACH)


def read_distilbert(model: Any, _: int) -> Table:  # noqa: ANN401 - classes of transformers
    """Read DistilBERT."""

    def layers() -> Iterator[tuple[torch.nn.Module, LayerTensors]]:
        for layer in model.transformer.layer:
            attention = layer.attention
            yield (
                layer,
                LayerTensors(
                    **linear("q", attention.q_lin),
                    **linear("k", attention.k_lin),
                    **linear("v", attention.v_lin),
                    **linear("output", attention.out_lin),
                    **norm("attention_norm", layer.sa_layer_norm),
                    **linear("up", layer.ffn.lin1),
                    **linear("down", layer.ffn.lin2),
                    **norm("ffn_norm", layer.output_layer_norm),
                    scale=(model.config.dim // model.config.n_heads) ** -0.5,
                ),
            )

    return _table(model, model.transformer.layer, layers(), activation=model.config.activation)


def _layer(
    layer: Any,  # noqa: ANN401 - classes of transformers
    products: Sequence[torch.nn.Module],
    attention_norm: torch.nn.Module,
    *,
    head_dim: int,
) -> tuple[torch.nn.Module, LayerTensors]:
    """Return a layer, and its tensors. `products` are those of query, key and value, and attention's output."""
    q, k, v, output = products
    tensors = LayerTensors(
        **linear("q", q),
        **linear("k", k),
        **linear("v", v),
        **linear("output", output),
        **norm("attention_norm", attention_norm),
        **linear("up", layer.intermediate.dense),
        **linear("down", layer.output.dense),
        **norm("ffn_norm", layer.output.LayerNorm),
        scale=head_dim**-0.5,
    )
    return layer, tensors


def _table(
    model: Any,  # noqa: ANN401 - classes of transformers
    modules: torch.nn.ModuleList,
    layers: Iterator[tuple[torch.nn.Module, LayerTensors]],
    *,
    activation: object,
    more: dict[str, Any] | None = None,
    reach: int = 0,
) -> Table:
    config, embeddings = model.config, model.embeddings
    tables, table_dtype = read_tables(
        words=embeddings.word_embeddings,
        positions=embeddings.position_embeddings,
        types=getattr(embeddings, "token_type_embeddings", None),
    )
    first = next(module for module in modules[0].modules() if isinstance(module, torch.nn.LayerNorm))
    heads = config.num_attention_heads
    spec = EncoderSpec(
        hidden=config.hidden_size,
        embedding=tables["words"].shape[1],
        heads=heads,
        head_dim=config.hidden_size // heads,
        intermediate=getattr(config, "intermediate_size", None) or config.hidden_dim,
        layers=len(modules),
        activation=find_activation(activation),
        table_dtype=table_dtype,
        epsilon=first.eps,
        reach=reach,
    )
    tensors = EncoderTensors(**tables, **norm("norm", embeddings.LayerNorm), **(more or {}))
    return Table(spec, tensors, layers)
