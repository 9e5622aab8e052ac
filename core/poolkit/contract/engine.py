"""The engine boundary: a flat batch of prompts in, hidden states out.

An entry point in group `poolkit.engines` names a module with `load_backbone`. Scheduler, poolers and everything that
is done to their rows are shared by all engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from poolkit.contract.encoder import ModalityInput
from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.contract.params import ResolvedParams

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["Backbone", "Batch", "BatchArrays", "EngineProvider", "SegmentArrays", "Segments", "States"]

ArrayT = TypeVar("ArrayT")
"""A numpy array or a torch tensor."""
ArrayT_co = TypeVar("ArrayT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class SegmentArrays(Generic[ArrayT]):
    """Index arrays of a batch's segments, as numpy arrays or as torch tensors on one device; int64.

    Attributes:
        lengths: tokens of each segment. (segments,)
        starts: each segment's first token. (segments,)
        ends: one past each segment's last token. (segments,)
        segment_ids: the segment of each token. (tokens,)
        positions: each token's place in its segment, from 0. (tokens,)
    """

    lengths: ArrayT
    starts: ArrayT
    ends: ArrayT
    segment_ids: ArrayT
    positions: ArrayT


@dataclass(frozen=True, eq=False)
class Segments:
    """The place of each prompt's rows among those of a batch: one after the other, without padding.

    Attributes:
        cu_seqlens: where each segment starts, and at last where the last one ends. (segments + 1,), int32
    """

    cu_seqlens: NDArray[np.int32]
    _on_device: dict[str, SegmentArrays[torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, lengths: Sequence[int] | NDArray[np.integer]) -> Segments:
        """Return segments of these lengths."""
        import numpy as np

        cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])
        return cls(cu_seqlens)

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self.cu_seqlens) - 1

    @property
    def tokens(self) -> int:
        """Rows of all segments together."""
        return int(self.cu_seqlens[-1])

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each segment."""
        sizes: list[int] = self.arrays.lengths.tolist()
        return sizes

    @cached_property
    def arrays(self) -> SegmentArrays[NDArray[Any]]:
        """Index arrays in numpy."""
        import numpy as np

        bounds = self.cu_seqlens.astype(np.int64)
        starts, ends = bounds[:-1], bounds[1:]
        lengths = ends - starts
        segment_ids = np.repeat(np.arange(len(lengths)), lengths)
        return SegmentArrays(lengths, starts, ends, segment_ids, np.arange(bounds[-1]) - starts[segment_ids])

    def on(self, device: torch.device | str) -> SegmentArrays[torch.Tensor]:
        """Return the index arrays on a device. They are copied there once."""
        found = self._on_device.get(str(device))
        return found if found is not None else self._keep(_copy_to(device, _segment_columns(self)), device)

    def split(self, rows: ArrayT) -> Sequence[ArrayT]:
        """Return each segment's part of a numpy array or torch tensor, as views. (tokens, …) -> (its tokens, …) each"""
        import numpy as np

        if isinstance(rows, np.ndarray):
            parts = [rows[start:end] for start, end in pairwise(self.cu_seqlens.tolist())]  # np.split takes far longer
        else:
            parts = cast("torch.Tensor", rows).split(self.sizes)  # type: ignore[no-untyped-call]  # torch's own
        return cast("Sequence[ArrayT]", parts)

    def _keep(self, tensors: Mapping[str, torch.Tensor], device: torch.device | str) -> SegmentArrays[torch.Tensor]:
        lengths, ends = tensors["lengths"], tensors["ends"]
        arrays = SegmentArrays(lengths, ends - lengths, ends, tensors["segment_ids"], tensors["positions"])
        return self._on_device.setdefault(str(device), arrays)


@dataclass(frozen=True, slots=True)
class BatchArrays(Generic[ArrayT]):
    """A batch's arrays in numpy, or as torch tensors on one device; int64, but for `is_query`, which is bool.

    The attributes are those of `Batch` and of its segments.
    """

    token_ids: ArrayT
    is_query: ArrayT
    segments: SegmentArrays[ArrayT]
    token_type_ids: ArrayT | None = None
    attention_lengths: ArrayT | None = None
    prompt_lengths: ArrayT | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts of one modality that run together, end to end and shortest first. Arrays are numpy's, on the host.

    Attributes:
        token_ids: of all prompts. (tokens,), int32
        cu_seqlens: where each prompt starts in `token_ids`, and at last where the last one ends. (prompts + 1,), int32
        is_query: which prompts are queries, for models that tell queries and documents apart. (prompts,), bool
        params: how each prompt is pooled.
        token_type_ids: which text of a pair each token belongs to; None where all are of type 0. (tokens,), int32
        attention_lengths: how many of each prompt's first tokens the others see (the rest are a query's expansion);
            None where all are seen. (prompts,), int32
        prompt_lengths: leading tokens of each prompt that are left out of pooling; None where none are.
            (prompts,), int32
        groups: the group of each prompt, by number, -1 for none; None where none has one. (prompts,), int32
        modality: the name of the prompts' modality.
        inputs: for other modalities than text, what the model reads of each prompt beside its tokens.
        prefixes: which earlier prompt each one continues: the tokens of that one come before its own, and are given
            once. -1 for a prompt that stands alone, as one that is continued does; None where all do. Prompts that
            continue others come after all that stand alone, those of one prefix together, shortest first. Nothing but
            a `Backbone` with `shares_prefixes` is given any. (prompts,), int32
    """

    token_ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    is_query: NDArray[np.bool_]
    params: Sequence[ResolvedParams]
    token_type_ids: NDArray[np.int32] | None = None
    attention_lengths: NDArray[np.int32] | None = None
    prompt_lengths: NDArray[np.int32] | None = None
    groups: NDArray[np.int32] | None = None
    modality: str = "text"
    inputs: Sequence[ModalityInput] = ()
    prefixes: NDArray[np.int32] | None = None
    _on_device: dict[str, BatchArrays[torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.params)

    @cached_property
    def segments(self) -> Segments:
        """The place of each prompt's tokens."""
        return Segments(self.cu_seqlens)

    @cached_property
    def arrays(self) -> BatchArrays[NDArray[Any]]:
        """The batch with its index arrays, in numpy."""
        return BatchArrays(
            self.token_ids,
            self.is_query,
            self.segments.arrays,
            self.token_type_ids,
            self.attention_lengths,
            self.prompt_lengths,
        )

    def on(self, device: torch.device | str) -> BatchArrays[torch.Tensor]:
        """Return the batch with its index arrays on a device: copied there once, and in one piece."""
        found = self._on_device.get(str(device))
        if found is not None:
            return found
        columns = {
            **_segment_columns(self.segments),
            "token_ids": self.token_ids,
            "is_query": self.is_query,
            "token_type_ids": self.token_type_ids,
            "attention_lengths": self.attention_lengths,
            "prompt_lengths": self.prompt_lengths,
        }
        tensors = _copy_to(device, {name: column for name, column in columns.items() if column is not None})
        arrays = BatchArrays(
            tensors["token_ids"],
            tensors["is_query"].bool(),
            self.segments._keep(tensors, device),
            tensors.get("token_type_ids"),
            tensors.get("attention_lengths"),
            tensors.get("prompt_lengths"),
        )
        return self._on_device.setdefault(str(device), arrays)


@dataclass(frozen=True, slots=True, eq=False)
class States(Generic[ArrayT_co]):
    """A batch's hidden states. Borrowed: valid until the next call of the backbone in the same thread.

    Attributes:
        tokens: the last hidden state of each token, prompt after prompt; None where the model pools by itself.
            (tokens, dim)
        segments: where each prompt's rows lie in `tokens`. A backbone leaves it out where they are those of its token
            ids, and gives its own for other states (image patches, audio frames); poolers always find it.
        rows: one row for each prompt, where the model has pooled by itself. (prompts, dim)
        taps: hidden states of further layers, by number: 0 is the embeddings, n the output of the n-th layer, as in
            transformers' `output_hidden_states`. (tokens, dim) each
    """

    tokens: ArrayT_co | None = None
    segments: Segments | None = None
    rows: ArrayT_co | None = None
    taps: Mapping[int, ArrayT_co] = field(default_factory=dict)


class Backbone(Protocol[ArrayT_co]):
    """Runs batches through a model's layers. May be called from several threads at a time.

    It may also have

    * `close()`, which ends the threads and gives back the connections, files and native memory that it holds. It is
      called once, when no batch runs any more, and no batch is run after it;
    * `linear(weight, bias) -> Callable`, which runs the linear layers of a head in place of torch, for an engine that
      gives a prompt the same bits in every batch: torch's depend on the number of rows. `weight` (outputs, inputs) and
      `bias` (outputs,) or None are numpy's in float32, and the function that it returns turns float32 (rows, inputs)
      into (rows, outputs);
    * `maxsim(query, documents, segments) -> scores`, which scores the documents of late interaction that come out of
      the model: the sum, over the query's vectors, of the largest product with any of a document's. `query` (vectors,
      dim) and `documents` (tokens, dim) are numpy's in float32, `Segments` say where each document's vectors lie, and
      `scores` is (documents,) in float32, of any value where a document has no vectors.

    `linear` and `maxsim` are called from several threads at a time, and not after `close`.

    It may say how batches are best run, by further attributes:

    * `num_streams`, an int: the threads that should run batches at the same time where the operator does not say
      (`info.config.num_streams`). 1 by default: one that uses all cores by itself gains nothing from more.
    * `efficient_tokens`, an int: the tokens of a batch from which on a larger one is hardly faster per token. Where
      several streams share what waits, no batch is made smaller than that. 256 by default.

    `info.config.threads_per_stream` is what the operator says of the threads of one batch. torch's are limited by
    poolkit in each stream; an engine with threads of its own reads it.

    It may have `shares_prefixes`, a bool: True for a causal model whose batches may have `Batch.prefixes`. Then prompts
    of one batch that begin alike, as those of a reranker do, are given it in two parts, and their common start once.
    It returns a row for each token that it is given.
    """

    @property
    def decisions(self) -> Sequence[Decision]:
        """Start-up decisions (device, dtype, path…) with their sources, for the start-up report."""
        ...

    def __call__(self, batch: Batch, /) -> States[ArrayT_co]:
        """Return the hidden states of a batch, as numpy arrays or torch tensors.

        Raises whatever the forward pass raises: the scheduler finds the prompt that is to blame.
        Raises MemoryError when the batch does not fit: the scheduler tries smaller ones.
        """
        ...


class EngineProvider(Protocol):
    """A module with `load_backbone`, which an entry point in group `poolkit.engines` names.

    It may also have

    * `describe(folder, *, config) -> ModelInfo | None`, for a folder that core cannot read. It is asked before any file
      is read, and returns None for a folder that is not its own;
    * `load_tokenizer(info) -> Tokenizer`, for a folder whose tokenizer transformers cannot load;
    * `suits(info) -> str | None`, for the choice that `--engine auto` makes: None if it wants to run the model, else
      why not, as "its attention is not one that this engine has". It reads no weights. An engine without it runs the
      models alone for which it is named. An engine that suits may still refuse in `load_backbone`: then the next is
      asked, and at last the engine `torch`;
    * `decide(info) -> Sequence[Decision]`, what it decides before weights are read (device, dtype), for
      `poolkit inspect`;
    * `find_device(info) -> str`, the torch device that its hidden states come on, where that is not the CPU;
    * `load_with_head(info, *, encoder, per_token) -> tuple[Backbone, Pooler] | str`, which loads a classifier of texts,
      or of tokens where `per_token`, with its own head, or returns why the engine cannot. Without it core loads that
      head and runs it with torch, or refuses the model where the head cannot be run alone.
    """

    def load_backbone(
        self, info: ModelInfo, *, taps: Sequence[int] = ()
    ) -> Backbone[NDArray[np.generic]] | Backbone[torch.Tensor] | str:
        """Load the weights of the model that `info` describes, without its head.

        Returns what runs it; or why this engine cannot, as "its attention is not one that this engine has".

        Args:
            info: what the model's files say, and the operator in `info.config`.
            taps: the layers whose hidden states are needed beside the last one's.
        """
        ...


def _segment_columns(segments: Segments) -> dict[str, NDArray[np.generic]]:
    arrays = segments.arrays
    return {
        "lengths": arrays.lengths,
        "ends": arrays.ends,
        "segment_ids": arrays.segment_ids,
        "positions": arrays.positions,
    }


def _copy_to(device: torch.device | str, columns: Mapping[str, NDArray[np.generic]]) -> dict[str, torch.Tensor]:
    """Copy some columns to a device, as int64 and in one piece."""
    import numpy as np
    import torch

    flat = torch.from_numpy(np.concatenate([column.astype(np.int64, copy=False) for column in columns.values()]))
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        flat = flat.pin_memory()  # so that nothing waits for what the GPU runs before
    parts = torch.split(flat.to(device, non_blocking=is_cuda), [len(column) for column in columns.values()])
    return dict(zip(columns, parts, strict=True))
