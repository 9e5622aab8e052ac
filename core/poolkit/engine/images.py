"""Models of images and texts: texts run as they do in other models, images of one shape together."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch
from torch.nn.functional import linear

from poolkit.contract import Output
from poolkit.engine.answers import Raw
from poolkit.engine.heads.layers import load_layers
from poolkit.engine.heads.pooling import pool
from poolkit.engine.loading import load_model
from poolkit.engine.passes.run import padded_pass
from poolkit.engine.passes.self_check import choose_pass, padding_id
from poolkit.errors import ModelError
from poolkit.models import Decision

if TYPE_CHECKING:
    from collections.abc import Hashable

    from transformers import CLIPModel, ColPaliForRetrieval, PreTrainedModel, SiglipModel
    from transformers.models.colpali.modeling_colpali import ColPaliForRetrievalOutput

    from poolkit.config import ModelConfig
    from poolkit.contract import EncodedPrompt
    from poolkit.engine.passes.segments import Batch
    from poolkit.models import ModelInfo

__all__ = ["ProduceImages", "load_image_model"]

ProduceImages: TypeAlias = Callable[[Sequence["EncodedPrompt"]], Raw]
"""Runs prompts that are images and returns what they gave, in prompt order."""

PLACES_IMAGES = "places images among its tokens"

RunAlike: TypeAlias = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""Runs images of one shape, by the names of the model's arguments. Returns (images, …)"""


def load_image_model(
    info: ModelInfo, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> tuple[Callable[[Batch], Raw], ProduceImages, tuple[Decision, ...]]:
    """Load a model of images and texts.

    Returns what runs texts, what runs images, and what was decided.
    """
    model = load_model(info, config, dtype=dtype, device=device, kind=info.architecture)
    load = _load_towers if Output.VECTOR in info.outputs else _load_retriever
    return load(model, info, config)


def _load_towers(
    model: PreTrainedModel, info: ModelInfo, config: ModelConfig
) -> tuple[Callable[[Batch], Raw], ProduceImages, tuple[Decision, ...]]:
    """One tower for texts, which is like any other model, and one for images, which all have one shape."""
    layers = load_layers(info.pooling.layers, device=model.device)
    towers = cast("CLIPModel | SiglipModel", model)
    run, path = choose_pass(towers.text_model, info, config)
    # SigLIP has the projection in the tower, and CLIP beside it.
    projection = cast("torch.nn.Linear", getattr(towers.text_model, "head", None) or towers.text_projection)
    weight = projection.weight.float()
    bias = projection.bias.float() if projection.bias is not None else None

    def texts(batch: Batch) -> Raw:
        rows = pool(run(batch), batch.segments, info.pooling.modes)  # (sequences, hidden)
        return Raw(layers(linear(rows, weight, bias), batch.queries.bool))

    def see(arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        rows: torch.Tensor = towers.get_image_features(**arguments).pooler_output
        return rows

    def images(prompts: Sequence[EncodedPrompt]) -> Raw:
        rows = torch.stack(_run_alike(see, prompts, model))
        is_query = torch.tensor([prompt.is_query for prompt in prompts], device=rows.device)
        return Raw(layers(rows, lambda: is_query))

    return texts, images, (path,)


def _load_retriever(
    model: PreTrainedModel, info: ModelInfo, config: ModelConfig
) -> tuple[Callable[[Batch], Raw], ProduceImages, tuple[Decision, ...]]:
    """One model for both, which puts an image's patches among its tokens and projects them itself."""
    if config.batching == "packed":
        raise ModelError(
            f"{info.name} cannot run packed: {info.architecture} {PLACES_IMAGES}. Leave batching at 'auto', or set it "
            "to 'padded'."
        )
    padded = partial(
        padded_pass,
        model,
        pad_token_id=padding_id(model) or 0,
        max_tokens=config.max_num_batched_tokens,
        take=_vectors,
    )

    # PaliGemma lets a prompt's tokens see each other where it is told their types, and else not always.
    takes_types = "token_type_ids" in inspect.signature(cast("ColPaliForRetrieval", model).vlm.forward).parameters

    def texts(batch: Batch) -> Raw:
        types = torch.zeros_like(batch.token_ids) if takes_types else None
        return Raw(padded(replace(batch, token_type_ids=types)).float(), batch.segments.sizes)

    def see(arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        return _vectors(model(**arguments))

    def images(prompts: Sequence[EncodedPrompt]) -> Raw:
        vectors = _run_alike(see, prompts, model)  # (tokens, dim) each
        return Raw(torch.cat(vectors).float(), [len(rows) for rows in vectors])

    return texts, images, (Decision("path", "padded", f"{info.architecture} {PLACES_IMAGES}"),)


def _vectors(output: object) -> torch.Tensor:
    """Return the vector of each token, normalised. (rows, tokens, dim)"""
    return cast("torch.Tensor", cast("ColPaliForRetrievalOutput", output).embeddings)


def _run_alike(run: RunAlike, prompts: Sequence[EncodedPrompt], model: PreTrainedModel) -> list[torch.Tensor]:
    """Run images of one shape together; return what each gave, in prompt order."""
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        alike[_shape(prompt)].append(place)
    rows: dict[int, torch.Tensor] = {}
    for places in alike.values():
        given = run(_arguments([prompts[place] for place in places], model))
        rows.update(zip(places, given, strict=True))
    return [rows[place] for place in range(len(prompts))]


def _shape(prompt: EncodedPrompt) -> Hashable:
    assert prompt.image is not None
    return len(prompt.token_ids), *((name, array.shape) for name, array in sorted(prompt.image.arrays.items()))


def _arguments(prompts: Sequence[EncodedPrompt], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    images = [prompt.image for prompt in prompts if prompt.image is not None]
    arrays = {name: np.concatenate([image.arrays[name] for image in images]) for name in images[0].arrays}
    if len(prompts[0].token_ids):
        arrays["input_ids"] = np.stack([prompt.token_ids for prompt in prompts]).astype(np.int64)  # (images, tokens)
        arrays["attention_mask"] = np.ones_like(arrays["input_ids"])
    tensors = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
    return {name: one.to(model.dtype) if one.is_floating_point() else one for name, one in tensors.items()}
