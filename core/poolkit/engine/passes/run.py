"""The ways to run a batch through a model. Each gives the same answer: the last hidden state of each token.

`padded_pass` is the plain one, the model run as transformers runs it; `packed_pass` is the fast one. `padded_logits`
runs a whole classifier the plain way.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch

from poolkit.engine.heads.layers import last_hidden_state
from poolkit.engine.passes.attention import SEGMENTS_ARGUMENT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.engine.heads.layers import TakeHidden
    from poolkit.engine.passes.segments import Batch

__all__ = ["Pass", "packed_pass", "padded_logits", "padded_pass", "takes_token_types"]


class Pass(Protocol):
    """Runs a batch and returns one row for each token, (tokens, dim), or each sequence, (sequences, dim)."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Run one batch."""
        ...


def takes_token_types(model: PreTrainedModel) -> bool:
    """Return whether the model tells the two texts of a pair apart by token types."""
    kinds = getattr(model.config, "type_vocab_size", None) or 0
    return kinds > 1 and "token_type_ids" in inspect.signature(model.forward).parameters


def packed_pass(
    model: PreTrainedModel, batch: Batch, *, position_offset: int, take: TakeHidden = last_hidden_state
) -> torch.Tensor:
    """Run all tokens as one row, positions starting anew in each segment. The model's attention must be packed."""
    types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids[None]}  # (1, tokens)
    output = model(
        input_ids=batch.token_ids[None],  # (1, tokens)
        position_ids=batch.positions(position_offset)[None],  # (1, tokens)
        **types,
        **{SEGMENTS_ARGUMENT: batch.segments},
    )
    return take(output)[0]  # (tokens, hidden)


def padded_pass(
    model: PreTrainedModel,
    batch: Batch,
    *,
    pad_token_id: int,
    max_tokens: int,
    take: TakeHidden = last_hidden_state,
) -> torch.Tensor:
    """Run the segments as rows padded on the right, so many rows at a time that they hold at most `max_tokens`."""
    return torch.cat(
        [take(output)[row, column] for output, row, column in _padded_blocks(model, batch, pad_token_id, max_tokens)]
    )


def padded_logits(
    model: PreTrainedModel, batch: Batch, *, pad_token_id: int, max_tokens: int, per_token: bool
) -> torch.Tensor:
    """Run a classifier with its head on padded rows. (sequences, labels), or (tokens, labels) where `per_token`"""
    blocks = _padded_blocks(model, batch, pad_token_id, max_tokens)
    return torch.cat(
        [output.logits[row, column] if per_token else output.logits for output, row, column in blocks]
    ).float()


def _padded_blocks(
    model: PreTrainedModel, batch: Batch, pad_token_id: int, max_tokens: int
) -> Iterator[tuple[Any, torch.Tensor, torch.Tensor]]:
    """Yield the model's output for some segments at a time, with the row and the column of each of their tokens."""
    segments = batch.segments
    for first, last in _blocks(segments.sizes, max_tokens):
        lengths = segments.lengths[first:last]
        start, stop = int(segments.starts[first]), int(segments.ends[last - 1])
        row, column = segments.owners[start:stop] - first, segments.places[start:stop]
        shape = (last - first, int(lengths[-1]))
        attended = lengths if segments.attended is None else segments.attended[first:last]
        arguments = {"attention_mask": (torch.arange(shape[1], device=lengths.device) < attended[:, None]).long()}
        for name, tokens, padding in (
            ("input_ids", batch.token_ids, pad_token_id),
            ("token_type_ids", batch.token_type_ids, 0),
        ):
            if tokens is not None:
                arguments[name] = torch.full(shape, padding, device=lengths.device)  # (rows, longest)
                arguments[name][row, column] = tokens[start:stop]
        yield model(**arguments), row, column


def _blocks(lengths: list[int], max_tokens: int) -> list[tuple[int, int]]:
    """Return the ranges of segments to run together, cut from the longest end: each is as wide as its longest."""
    blocks = []
    last = len(lengths)
    while last > 0:
        rows = max(1, max_tokens // lengths[last - 1])
        blocks.append((max(0, last - rows), last))
        last -= rows
    return blocks[::-1]
