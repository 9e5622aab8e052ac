"""Models of images and texts: two towers with projections of their own, or one model that projects every token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch
from torch.nn.functional import linear

from poolkit.contract import Decision, Segments, States
from poolkit.engine.poolers.pooling import POOL, pool
from poolkit.engine.torch.attention import BATCH_ARGUMENT
from poolkit.engine.torch.backbone import TorchBackbone
from poolkit.engine.torch.families.family import TorchFamily
from poolkit.engine.torch.forward import Take, padded_forward, parameters_of
from poolkit.engine.torch.loading import load_weights
from poolkit.engine.torch.self_check import choose_forward, padding_id, refuse_packed

if TYPE_CHECKING:
    from collections.abc import Hashable

    from transformers import CLIPModel, CLIPTextModel, ColPaliForRetrieval, PreTrainedModel, SiglipModel
    from transformers.modeling_outputs import BaseModelOutput
    from transformers.models.colpali.modeling_colpali import ColPaliForRetrievalOutput

    from poolkit.contract import Backbone, Batch, ModelInfo
    from poolkit.engine.torch.batch import PackedBatch
    from poolkit.engine.torch.forward import RunPacked
    from poolkit.engine.torch.loading import Placement

__all__ = ["CLIP", "IMAGE_RETRIEVER", "SIGLIP"]

PLACES_IMAGES = "places images among its tokens"
NO_TAPS = "its vectors are those of its own projection, and it has no hidden states to tap"

RunAlike: TypeAlias = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""Runs images of one shape, by the names of the model's arguments. Returns (images, …)"""


def _load_towers(
    info: ModelInfo, placement: Placement, *, taps: Sequence[int], run: RunPacked
) -> Backbone[torch.Tensor] | str:
    """Load one tower for texts, which is like any other model, and one for images, which all have one shape."""
    if taps:
        return NO_TAPS
    model = load_weights(info, placement, kind=info.architecture)
    towers = cast("CLIPModel | SiglipModel", model)
    modes = [POOL[mode] for mode in info.pooling.modes]
    forward, path = choose_forward(towers.text_model, info, run=run, exchanges_attention=True)
    # SigLIP has the projection in the tower, and CLIP beside it.
    projection = cast("torch.nn.Linear", getattr(towers.text_model, "head", None) or towers.text_projection)
    weight = projection.weight.float()
    bias = projection.bias.float() if projection.bias is not None else None

    def texts(batch: Batch) -> States[torch.Tensor]:
        hidden = forward(batch).tokens
        assert hidden is not None
        return States(rows=linear(pool(hidden, batch.segments, batch, modes), weight, bias))

    def see(arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        rows: torch.Tensor = towers.get_image_features(**arguments).pooler_output
        return rows

    def images(batch: Batch) -> States[torch.Tensor]:
        return States(rows=torch.stack(_run_alike(see, batch, model)))

    return TorchBackbone({"text": texts, "image": images}, decisions=(*placement.decisions, path))


def _run_packed_clip(
    tower: PreTrainedModel, batch: PackedBatch, _: int, arguments: Mapping[str, object]
) -> BaseModelOutput:
    """Run all texts as one row, as `CLIPTextModel.forward` runs a batch: it refuses a row longer than one text may be.

    The tower's attention must be packed.
    """
    clip = cast("CLIPTextModel", tower)
    embeddings = clip.embeddings
    states = embeddings.token_embedding(batch.token_ids) + embeddings.position_embedding(batch.positions(0))
    output: BaseModelOutput = clip.encoder(
        inputs_embeds=states[None],  # (1, rows, hidden)
        attention_mask=None,
        is_causal=True,
        **{BATCH_ARGUMENT: batch},
        **arguments,
    )
    output.last_hidden_state = clip.final_layer_norm(output.last_hidden_state)
    return output


def _load_clip(info: ModelInfo, placement: Placement, *, taps: Sequence[int]) -> Backbone[torch.Tensor] | str:
    return _load_towers(info, placement, taps=taps, run=_run_packed_clip)


def _load_siglip(info: ModelInfo, placement: Placement, *, taps: Sequence[int]) -> Backbone[torch.Tensor] | str:
    return _load_towers(info, placement, taps=taps, run=_all_of_one_length)


def _all_of_one_length(
    model: PreTrainedModel, batch: PackedBatch, position_offset: int, arguments: Mapping[str, object]
) -> BaseModelOutput:
    raise NotImplementedError("all texts have one length, so that there is no padding to save")


def _load_retriever(info: ModelInfo, placement: Placement, *, taps: Sequence[int]) -> Backbone[torch.Tensor] | str:
    """Load one model for both, which puts an image's patches among its tokens and projects them itself."""
    if taps:
        return NO_TAPS
    reason = f"{info.architecture} {PLACES_IMAGES}"
    refuse_packed(info, reason)
    model = load_weights(info, placement, kind=info.architecture)
    # PaliGemma lets a prompt's tokens see each other where it is told their types, and else not always.
    takes_types = "token_type_ids" in parameters_of(cast("ColPaliForRetrieval", model).vlm)

    def texts(batch: Batch) -> States[torch.Tensor]:
        return padded_forward(
            model,
            replace(batch, token_type_ids=np.zeros_like(batch.token_ids)),
            pad_token_id=padding_id(model) or 0,
            max_tokens=info.config.max_num_batched_tokens,
            take=Take(_vectors),
            takes_types=takes_types,
        )

    def see(arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        return _vectors(model(**arguments))

    def images(batch: Batch) -> States[torch.Tensor]:
        vectors = _run_alike(see, batch, model)  # (tokens, dim) each
        return States(torch.cat(vectors).float(), Segments.of([len(rows) for rows in vectors]))

    return TorchBackbone(
        {"text": texts, "image": images},
        decisions=(*placement.decisions, Decision("path", "padded", reason)),
    )


def _vectors(output: object) -> torch.Tensor:
    """Return the vector of each token, normalised. (rows, tokens, dim)"""
    return cast("torch.Tensor", cast("ColPaliForRetrievalOutput", output).embeddings)


def _run_alike(run: RunAlike, batch: Batch, model: PreTrainedModel) -> list[torch.Tensor]:
    """Run images of one shape together; return what each gave, in the batch's order."""
    images = batch.inputs
    token_ids = batch.segments.split(batch.token_ids)
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        shapes = ((name, array.shape) for name, array in sorted(image.arrays.items()))
        alike[len(token_ids[place]), *shapes].append(place)
    rows: dict[int, torch.Tensor] = {}
    for places in alike.values():
        arrays = {
            name: np.concatenate([images[place].arrays[name] for place in places]) for name in images[places[0]].arrays
        }
        if len(token_ids[places[0]]):
            arrays["input_ids"] = np.stack([token_ids[place] for place in places]).astype(np.int64)  # (images, tokens)
            arrays["attention_mask"] = np.ones_like(arrays["input_ids"])
        tensors = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
        rows.update(zip(places, run(_in_dtype(tensors, model.dtype)), strict=True))
    return [rows[place] for place in range(len(images))]


def _in_dtype(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


CLIP = TorchFamily(load=_load_clip)

SIGLIP = TorchFamily(load=_load_siglip)
"""SigLIP, and SigLIP 2 with images of any shape."""

IMAGE_RETRIEVER = TorchFamily(load=_load_retriever)
"""ColPali, ColQwen2, ColModernVBERT."""
