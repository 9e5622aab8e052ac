"""The ways to run a batch through a model. Each gives the same answer: the last hidden state of each token.

`padded_pass` is the plain one, the model run as transformers runs it; `packed_pass` is the fast one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from poolkit.engine.attention import SEGMENTS_ARGUMENT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from poolkit.engine.segments import Batch, Run

__all__ = ["Pass", "packed_pass", "padded_pass"]


class Pass(Protocol):
    """Runs a batch and returns the last hidden state of each token. (tokens, hidden)"""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Run one batch."""
        ...


def packed_pass(model: PreTrainedModel, batch: Batch, *, position_offset: int) -> torch.Tensor:
    """Run all tokens as one row, positions starting anew in each segment. The model's attention must be packed."""
    return model(  # type: ignore[no-any-return]  # a model's output is untyped
        input_ids=batch.token_ids[None],  # (1, tokens)
        position_ids=batch.segments.places[None] + position_offset,  # (1, tokens)
        **{SEGMENTS_ARGUMENT: batch.segments},
    ).last_hidden_state[0]


def padded_pass(model: PreTrainedModel, batch: Batch, *, pad_token_id: int, max_tokens: int) -> torch.Tensor:
    """Run the segments as rows padded on the right, so many rows at a time that they hold at most `max_tokens`."""
    return torch.cat(
        [
            _padded_rows(model, batch, first, last, pad_token_id)
            for first, last in _blocks(batch.segments.runs, max_tokens)
        ]
    )


def _padded_rows(model: PreTrainedModel, batch: Batch, first: int, last: int, pad_token_id: int) -> torch.Tensor:
    """Run segments `first` to `last` (not included) and return the hidden states of their own tokens."""
    segments = batch.segments
    lengths = segments.lengths[first:last]
    start, stop = int(segments.starts[first]), int(segments.ends[last - 1])
    row, column = segments.owners[start:stop] - first, segments.places[start:stop]
    shape = (last - first, int(lengths[-1]))
    input_ids = torch.full(shape, pad_token_id, device=lengths.device)
    input_ids[row, column] = batch.token_ids[start:stop]
    is_token = torch.arange(shape[1], device=lengths.device) < lengths[:, None]  # (rows, longest)
    hidden = model(input_ids=input_ids, attention_mask=is_token.long()).last_hidden_state  # (rows, longest, hidden)
    return hidden[row, column]  # type: ignore[no-any-return]  # a model's output is untyped


def _blocks(runs: tuple[Run, ...], max_tokens: int) -> list[tuple[int, int]]:
    """Return the ranges of segments to run together, cut from the longest end: each is as wide as its longest."""
    lengths = [run.length for run in runs for _ in range(run.count)]
    blocks = []
    last = len(lengths)
    while last > 0:
        rows = max(1, max_tokens // lengths[last - 1])
        blocks.append((max(0, last - rows), last))
        last -= rows
    return blocks[::-1]
