"""Loads a model for what one task asks of it: backbone, then pooler, then what finishes their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from poolkit.contract import Activation, HeadContext, Output
from poolkit.engine.arrays import ArrayT
from poolkit.engine.finish import Finish
from poolkit.engine.model import LoadedModel, close_backbone
from poolkit.engine.poolers.layers import has_weights, load_layers
from poolkit.engine.poolers.pooling import POOL, Pool
from poolkit.engine.poolers.task_head import OnTorch
from poolkit.engine.poolers.tokens import TokenPooler
from poolkit.engine.poolers.vector import VectorPooler
from poolkit.engine.queries import QueryStore

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

    from poolkit.contract import Backbone, EngineProvider, ModelInfo, OutputKind, Pooler, PromptEncoder
    from poolkit.engine.choice import EngineChoice

    Parts: TypeAlias = tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]

__all__ = ["load_model", "make_finish"]

CLASSIFIES = (Output.LOGITS, Output.TOKEN_LOGITS)


class LoadWithHead(Protocol):
    """Loads a classifier with its own head: what an engine may have beside `load_backbone`."""

    def __call__(self, info: ModelInfo, *, encoder: PromptEncoder, per_token: bool) -> Parts | str:
        """Return what runs the base, and what gives the logits of each prompt, or of each token where `per_token`.

        A string is the reason why the engine cannot.
        """
        ...


def load_model(
    engines: EngineChoice,
    info: ModelInfo,
    *,
    output: Output,
    activation: Activation,
    kind: OutputKind,
    encoder: PromptEncoder,
    settings: BaseModel,
    create_head: Callable[[HeadContext], Pooler[torch.Tensor]] | None = None,
    taps: Sequence[int] = (),
    pooling: Mapping[str, Pool] = POOL,
) -> LoadedModel[torch.Tensor]:
    """Load the weights of the model that `info` describes, with what makes `output` of its hidden states.

    Args:
        engines: those that may run it; each that cannot is left out.
        info: what the model's files say.
        output: what is asked of the model.
        activation: as in `PoolingTask`.
        kind: of the outputs.
        encoder: tokenizes prompts as the pipeline does.
        settings: the task's own.
        create_head: makes the task's own head; None for the model's.
        taps: layers whose hidden states the task's head needs.
        pooling: the pooling modes by name; by default poolkit's own.

    Raises ModelError where the model cannot be loaded, or no engine can run it.
    """

    def load(provider: EngineProvider) -> Parts | str:
        if create_head is None and output in CLASSIFIES:
            return _load_with_head(provider, info, encoder, per_token=output is Output.TOKEN_LOGITS)
        # First what is small: a head that cannot be made is told before the weights are read.
        context = HeadContext(info, settings, encoder, _device(provider, info))
        pooler = _load_pooler(context, output, pooling) if create_head is None else OnTorch(create_head(context))
        backbone = _load_backbone(provider, info, taps)
        return backbone if isinstance(backbone, str) else (backbone, pooler)

    while isinstance(found := load(engines.current(info).provider), str):
        engines.refuse(found)
    backbone, pooler = found
    linear = getattr(backbone, "linear", None)
    if linear is not None and isinstance(pooler, OnTorch):
        pooler = OnTorch(pooler.pooler, linear=linear)
    decisions = (engines.decision(info), *backbone.decisions)
    finish: Finish[torch.Tensor] = make_finish(info, output, activation, kind, backbone=backbone)
    return LoadedModel(info.name, backbone, pooler, finish, queries=finish.queries, decisions=decisions)


def make_finish(
    info: ModelInfo, output: Output, activation: Activation, kind: OutputKind, *, backbone: Backbone[ArrayT]
) -> Finish[ArrayT]:
    """Return what is done to the rows of one task of a model."""
    pooler = info.config.pooler_config
    return Finish(
        info.name,
        info.label_activation if activation is Activation.MODEL else activation,
        QueryStore(getattr(backbone, "maxsim", None)),
        mean=pooler.logit_mean if output is Output.LOGITS else None,
        sigma=pooler.logit_sigma if output is Output.LOGITS else None,
        last=kind.finish,
    )


def _load_backbone(provider: EngineProvider, info: ModelInfo, taps: Sequence[int] = ()) -> Backbone[torch.Tensor] | str:
    # Numpy's arrays go the same way: poolers and finish find out for themselves what they are given.
    return cast("Backbone[torch.Tensor] | str", provider.load_backbone(info, taps=tuple(taps)))


def _device(provider: EngineProvider, info: ModelInfo) -> str:
    """Return the torch device that the engine's hidden states come on."""
    find: Callable[[ModelInfo], str] | None = getattr(provider, "find_device", None)
    return "cpu" if find is None else find(info)


def _load_with_head(
    provider: EngineProvider, info: ModelInfo, encoder: PromptEncoder, *, per_token: bool
) -> Parts | str:
    """Return the model with its own head, which runs with torch where the engine does not bring it.

    Returns the reason where the engine cannot run the model, or the head cannot be run alone.
    """
    load: LoadWithHead | None = getattr(provider, "load_with_head", None)
    if load is not None:
        return load(info, encoder=encoder, per_token=per_token)
    from poolkit.engine.torch import load_with_head

    backbone = _load_backbone(provider, info)
    if isinstance(backbone, str):
        return backbone
    try:
        config = info.config.model_copy(update={"device": _device(provider, info), "dtype": "float32"})
        with_head = load_with_head(replace(info, config=config), encoder=encoder, per_token=per_token)
    except BaseException:
        close_backbone(backbone, info.name)
        raise
    pooler = None if isinstance(with_head, str) else with_head[1]
    if pooler is None or isinstance(pooler, VectorPooler | TokenPooler):  # they pass through what the whole model gives
        close_backbone(backbone, info.name)
        return "its head cannot be run without the rest of the model"
    return backbone, OnTorch(pooler)


def _load_pooler(context: HeadContext, output: Output, pooling: Mapping[str, Pool]) -> Pooler[torch.Tensor]:
    """Return the pooler for vectors of texts, or of tokens."""
    info, device = context.model, context.device
    token_specs, specs = info.pooling.token_layers, info.pooling.layers if output is Output.VECTOR else ()
    needs_torch = has_weights((*token_specs, *specs))
    token_layers, layers = load_layers(token_specs, device=device), load_layers(specs, device=device)
    pooler: Pooler[torch.Tensor]
    if output is Output.VECTOR:
        modes = [pooling[mode] for mode in info.pooling.modes]
        pooler = VectorPooler(modes, token_layers=token_layers if token_specs else None, layers=layers)
        needs_torch = needs_torch or not set(modes) <= set(POOL.values())  # those of plugins may want tensors
    else:
        spec = info.multi_vector
        found = [context.encoder.token_id(word) for word in (spec.skiplist if spec is not None else ())]
        skipped = [token_id for token_id in found if token_id is not None]
        pooler = TokenPooler(layers=token_layers, spec=spec, skipped=skipped)
    return OnTorch(pooler) if needs_torch else pooler
