"""Adapters of model families that need special care: named by entries of a table, never tested for in general code."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol

from poolkit.contract import ModelInfo
from poolkit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from poolkit.contract import Backbone, Pooler, PromptEncoder
    from poolkit.engine.torch.forward import RunPacked
    from poolkit.engine.torch.loading import Placement

__all__ = ["LoadBackbone", "LoadHead", "TorchFamily", "find_family"]

ENGINE = "torch"


class LoadBackbone(Protocol):
    """Loads a model in a way of its own."""

    def __call__(self, info: ModelInfo, placement: Placement, *, taps: Sequence[int]) -> Backbone[torch.Tensor] | str:
        """Return the model, or why it cannot run so."""
        ...


class LoadHead(Protocol):
    """Loads a model with its own head."""

    def __call__(
        self, info: ModelInfo, placement: Placement, *, encoder: PromptEncoder, per_token: bool
    ) -> tuple[Backbone[torch.Tensor], Pooler[torch.Tensor]]:
        """Return the model, and what gives its logits in float32: of whole texts, or of each token."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFamily:
    """The adapter of this engine for a family, as `ModelFamily.adapters` names it.

    What is None is done as for all other models.

        ADAPTER = TorchFamily(load=load)  # a module of its own: it is imported with the weights

    Attributes:
        run_packed: runs a packed batch through layers that do not use transformers' attention interface.
        load: loads the model.
        load_head: loads the model with its own head, for logits.
    """

    run_packed: RunPacked | None = None
    load: LoadBackbone | None = None
    load_head: LoadHead | None = None


def find_family(info: ModelInfo) -> TorchFamily:
    """Return what is special about a model: of each field, the first of its families that has one counts.

    Raises ModelError where what a family names cannot be imported.
    """
    families = [_import(path, info) for family in info.families if (path := family.adapters.get(ENGINE)) is not None]
    chosen = TorchFamily()
    for family in reversed(families):
        given = {field.name: value for field in fields(family) if (value := getattr(family, field.name)) is not None}
        chosen = replace(chosen, **given)
    return chosen


def _import(path: str, info: ModelInfo) -> TorchFamily:
    try:
        family = pkgutil.resolve_name(path)
    except Exception as exc:
        raise ModelError(
            f"What the engine {ENGINE} needs for {info.name}, {path!r}, cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(family, TorchFamily):
        raise ModelError(
            f"What the engine {ENGINE} needs for {info.name}, {path!r}, is a {type(family).__name__}; it must be a "
            "poolkit.TorchFamily."
        )
    return family
