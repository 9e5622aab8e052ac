"""Small transformers models with random weights, of each family that the encoder has code for, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from poolkit_cpu_kernels import ALL, EncoderSpec, EncoderTensors, LayerTensors
from tables import VOCABULARY, Table
from torch import Tensor, nn

POSITIONS = 6000
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
    "relu": "relu",
}


def array(tensor: Tensor | None) -> NDArray[np.float32] | None:
    return None if tensor is None else np.ascontiguousarray(tensor.detach().float().numpy())


def linear(name: str, module: nn.Linear) -> dict[str, NDArray[np.float32] | None]:
    return {f"{name}_weight": array(module.weight), f"{name}_bias": array(module.bias)}


def norm(name: str, module: nn.Module) -> dict[str, NDArray[np.float32] | None]:
    return {
        f"{name}_weight": array(getattr(module, "weight", None)),
        f"{name}_bias": array(getattr(module, "bias", None)),
    }


def rope_table(inverse_frequencies: Tensor, scaling: float) -> NDArray[np.float32]:
    angles = (
        torch.arange(POSITIONS, dtype=torch.float32)[:, None] * inverse_frequencies.float()[None]
    )  # (positions, head_dim / 2)
    return (torch.cat([angles.cos(), angles.sin()], -1) * scaling).numpy()


def bert_table(model: nn.Module) -> Table:
    """BERT, RoBERTa and ELECTRA."""
    config, embeddings = model.config, model.embeddings
    projection = getattr(model, "embeddings_project", None)
    head_dim = config.hidden_size // config.num_attention_heads
    layers = tuple(
        LayerTensors(
            **linear("q", layer.attention.self.query),
            **linear("k", layer.attention.self.key),
            **linear("v", layer.attention.self.value),
            **linear("output", layer.attention.output.dense),
            **linear("up", layer.intermediate.dense),
            **linear("down", layer.output.dense),
            **norm("attention_norm", layer.attention.output.LayerNorm),
            **norm("ffn_norm", layer.output.LayerNorm),
            scale=head_dim**-0.5,
        )
        for layer in model.encoder.layer
    )
    return Table(
        EncoderSpec(
            hidden=config.hidden_size,
            embedding=embeddings.word_embeddings.embedding_dim,
            heads=config.num_attention_heads,
            head_dim=head_dim,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            activation=_ACTIVATIONS[config.hidden_act],
            epsilon=config.layer_norm_eps,
        ),
        EncoderTensors(
            words=array(embeddings.word_embeddings.weight),
            positions=array(embeddings.position_embeddings.weight),
            types=array(embeddings.token_type_embeddings.weight),
            **norm("norm", embeddings.LayerNorm),
            **({} if projection is None else linear("projection", projection)),
        ),
        layers,
    )


def distilbert_table(model: nn.Module) -> Table:
    config, embeddings = model.config, model.embeddings
    layers = tuple(
        LayerTensors(
            **linear("q", layer.attention.q_lin),
            **linear("k", layer.attention.k_lin),
            **linear("v", layer.attention.v_lin),
            **linear("output", layer.attention.out_lin),
            **linear("up", layer.ffn.lin1),
            **linear("down", layer.ffn.lin2),
            **norm("attention_norm", layer.sa_layer_norm),
            **norm("ffn_norm", layer.output_layer_norm),
            scale=(config.dim // config.n_heads) ** -0.5,
        )
        for layer in model.transformer.layer
    )
    return Table(
        EncoderSpec(
            hidden=config.dim,
            heads=config.n_heads,
            head_dim=config.dim // config.n_heads,
            intermediate=config.hidden_dim,
            layers=config.n_layers,
            activation=_ACTIVATIONS[config.activation],
        ),
        EncoderTensors(
            words=array(embeddings.word_embeddings.weight),
            positions=array(embeddings.position_embeddings.weight),
            **norm("norm", embeddings.LayerNorm),
        ),
        layers,
    )


def mpnet_table(model: nn.Module) -> Table:
    config, embeddings = model.config, model.embeddings
    head_dim, reach = config.hidden_size // config.num_attention_heads, 128
    distances = torch.arange(-reach, reach + 1)[None]  # key minus query
    buckets = model.encoder.relative_position_bucket(distances, num_buckets=config.relative_attention_num_buckets)
    layers = tuple(
        LayerTensors(
            **linear("q", layer.attention.attn.q),
            **linear("k", layer.attention.attn.k),
            **linear("v", layer.attention.attn.v),
            **linear("output", layer.attention.attn.o),
            **linear("up", layer.intermediate.dense),
            **linear("down", layer.output.dense),
            **norm("attention_norm", layer.attention.LayerNorm),
            **norm("ffn_norm", layer.output.LayerNorm),
            scale=head_dim**-0.5,
        )
        for layer in model.encoder.layer
    )
    return Table(
        EncoderSpec(
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            head_dim=head_dim,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            reach=reach,
            epsilon=config.layer_norm_eps,
        ),
        EncoderTensors(
            words=array(embeddings.word_embeddings.weight),
            positions=array(embeddings.position_embeddings.weight),
            **norm("norm", embeddings.LayerNorm),
            position_bias=array(model.encoder.relative_attention_bias(buckets)[0].T),  # (heads, 2 reach + 1)
        ),
        layers,
    )


def modernbert_table(model: nn.Module) -> Table:
    config, rotary = model.config, model.rotary_emb
    head_dim = config.hidden_size // config.num_attention_heads
    ropes = {
        kind: rope_table(getattr(rotary, f"{kind}_inv_freq"), getattr(rotary, f"{kind}_attention_scaling"))
        for kind in set(config.layer_types)
    }

    def layers() -> Iterator[LayerTensors]:
        for layer, kind in zip(model.layers, config.layer_types, strict=True):
            q, k, v = map(array, layer.attn.Wqkv.weight.chunk(3))
            gate, up = layer.mlp.Wi.weight.chunk(2)
            window = config.sliding_window if kind == "sliding_attention" else ALL
            yield LayerTensors(
                q_weight=q,
                k_weight=k,
                v_weight=v,
                **linear("output", layer.attn.Wo),
                gate_weight=array(gate),
                up_weight=array(up),
                **linear("down", layer.mlp.Wo),
                **norm("attention_norm", layer.attn_norm),
                **norm("ffn_norm", layer.mlp_norm),
                rope=ropes[kind],
                scale=head_dim**-0.5,
                before=window,
                after=window,
            )

    return Table(
        EncoderSpec(
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            head_dim=head_dim,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            order="pre",
            gated=True,
            activation=_ACTIVATIONS[config.hidden_activation],
            epsilon=config.norm_eps,
        ),
        EncoderTensors(
            words=array(model.embeddings.tok_embeddings.weight),
            **norm("norm", model.embeddings.norm),
            **norm("final_norm", model.final_norm),
        ),
        tuple(layers()),
    )


def decoder_table(model: nn.Module) -> Table:
    """Llama and what is built like it: Mistral, Qwen2, Qwen3, Gemma, Gemma 3."""
    config, rotary = model.config, model.rotary_emb
    attention = model.layers[0].self_attn
    is_gemma, is_gemma3 = config.model_type.startswith("gemma"), config.model_type.startswith("gemma3")

    def weight(module: nn.Module) -> NDArray[np.float32]:
        return array(module.weight.detach().float() + 1 if is_gemma else module.weight)

    if is_gemma3:
        ropes = {
            kind: rope_table(getattr(rotary, f"{kind}_inv_freq"), getattr(rotary, f"{kind}_attention_scaling"))
            for kind in set(config.layer_types)
        }
    else:
        table = rope_table(rotary.inv_freq, rotary.attention_scaling)
        ropes = {"full_attention": table, "sliding_attention": table}

    def layers() -> Iterator[LayerTensors]:
        for index, layer in enumerate(model.layers):
            kind = (getattr(config, "layer_types", None) or ["sliding_attention"] * (index + 1))[index]
            window = getattr(config, "sliding_window", None) if kind == "sliding_attention" else None
            own, norms = layer.self_attn, {"attention_norm_weight": weight(layer.input_layernorm)}
            if is_gemma3:
                norms["after_attention_weight"] = weight(layer.post_attention_layernorm)
                norms["ffn_norm_weight"] = weight(layer.pre_feedforward_layernorm)
                norms["after_ffn_weight"] = weight(layer.post_feedforward_layernorm)
            else:
                norms["ffn_norm_weight"] = weight(layer.post_attention_layernorm)
            if hasattr(own, "q_norm"):
                norms |= {"q_norm_weight": weight(own.q_norm), "k_norm_weight": weight(own.k_norm)}
            yield LayerTensors(
                **linear("q", own.q_proj),
                **linear("k", own.k_proj),
                **linear("v", own.v_proj),
                **linear("output", own.o_proj),
                **linear("gate", layer.mlp.gate_proj),
                **linear("up", layer.mlp.up_proj),
                **linear("down", layer.mlp.down_proj),
                **norms,
                rope=ropes[kind],
                scale=own.scaling,
                before=ALL if window is None else window - 1,
                after=0,
            )

    return Table(
        EncoderSpec(
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=attention.head_dim,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            norm="rms",
            order="sandwich" if is_gemma3 else "pre",
            gated=True,
            norm_qk=hasattr(attention, "q_norm"),
            activation=_ACTIVATIONS[getattr(config, "hidden_activation", None) or config.hidden_act],
            epsilon=config.rms_norm_eps,
            embedding_scale=config.hidden_size**0.5 if is_gemma else 1,
        ),
        EncoderTensors(words=array(model.embed_tokens.weight), final_norm_weight=weight(model.norm)),
        tuple(layers()),
    )


_COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "pad_token_id": 0}
_NO_TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
_ENCODER = {**_COMMON, "hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 160, "num_hidden_layers": 2}
_DECODER = {**_COMMON, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 160, "num_hidden_layers": 2}
_GEMMA3 = {
    **_DECODER,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention"],
}


def _model(kind: str, config: dict[str, object]) -> nn.Module:
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))


FAMILIES: dict[str, tuple[Callable[[nn.Module], Table], Callable[[], nn.Module]]] = {
    "bert": (bert_table, lambda: _model("Bert", _ENCODER)),
    "bert-relu": (bert_table, lambda: _model("Bert", {**_ENCODER, "hidden_act": "relu", "hidden_size": 192})),
    "roberta": (bert_table, lambda: _model("Roberta", {**_ENCODER, "pad_token_id": 1})),
    "electra": (bert_table, lambda: _model("Electra", {**_ENCODER, "embedding_size": 64})),
    "distilbert": (
        distilbert_table,
        lambda: _model("DistilBert", {**_COMMON, "dim": 128, "n_heads": 2, "hidden_dim": 160, "n_layers": 2}),
    ),
    "mpnet": (mpnet_table, lambda: _model("MPNet", {**_ENCODER, "pad_token_id": 1})),
    "modernbert": (
        modernbert_table,
        lambda: _model(
            "ModernBert",
            {**_ENCODER, **_NO_TOKENS, "hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 4},
        ),
    ),
    "qwen3": (decoder_table, lambda: _model("Qwen3", {**_DECODER, "num_key_value_heads": 2, "head_dim": 64})),
    "qwen2": (decoder_table, lambda: _model("Qwen2", {**_DECODER, "num_key_value_heads": 2})),
    "llama": (decoder_table, lambda: _model("Llama", {**_DECODER, "num_key_value_heads": 1})),
    "mistral": (decoder_table, lambda: _model("Mistral", {**_DECODER, "num_key_value_heads": 2, "sliding_window": 40})),
    "gemma": (decoder_table, lambda: _model("Gemma", {**_DECODER, "num_key_value_heads": 1, "head_dim": 96})),
    "gemma3": (decoder_table, lambda: _model("Gemma3Text", _GEMMA3)),
}


def build(family: str) -> tuple[nn.Module, Table]:
    """Return a model of a family and its table. Weights are larger than usual, so that attention and norms matter."""
    read, make = FAMILIES[family]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower():
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif parameter.dim() == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
            elif "embeddings." in name or "embed_tokens" in name or "bias" in name:
                parameter.copy_(torch.randn_like(parameter) * (0.1 if family.startswith("gemma") else 1))
            else:
                sharper = 2 if "q" in name.split(".")[-2] and "qkv" not in name else 1
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[1] ** -0.5 * sharper)
    return model, read(model)


@torch.inference_mode()
def reference(model: nn.Module, text: NDArray[np.int32], *, seen: int | None = None) -> NDArray[np.float32]:
    """Return transformers' last hidden states of one text: (tokens, hidden). Only its first `seen` tokens are keys."""
    inputs = {
        "input_ids": torch.from_numpy(text.astype(np.int64))[None],
        "attention_mask": torch.arange(len(text))[None] < (len(text) if seen is None else seen),
    }
    if model.config.model_type in ("roberta", "mpnet"):  # which count positions from 2
        inputs["position_ids"] = torch.arange(len(text))[None]
    return model(**inputs).last_hidden_state[0].numpy()


def with_bfloat16_tables(table: Table) -> tuple[Table, Table]:
    """Return a model with embedding tables rounded to bfloat16: held in float32, and in bfloat16."""
    names = [name for name in ("words", "positions", "types") if getattr(table.tensors, name) is not None]
    rounded = {name: torch.from_numpy(getattr(table.tensors, name)).bfloat16() for name in names}
    floats = {name: tensor.float().numpy() for name, tensor in rounded.items()}
    halves = {name: tensor.view(torch.int16).numpy().view(np.uint16) for name, tensor in rounded.items()}
    return (
        replace(table, tensors=replace(table.tensors, **floats)),
        replace(table, spec=replace(table.spec, table_dtype="bfloat16"), tensors=replace(table.tensors, **halves)),
    )
