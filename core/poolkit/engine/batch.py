"""Lays prompts of any lengths end to end in one flat batch, shortest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from poolkit.contract import Batch, States
from poolkit.engine.arrays import AnyArray, ArrayT
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import EncodedPrompt

__all__ = ["fit_states", "lay_out"]


def lay_out(prompts: Sequence[EncodedPrompt]) -> tuple[Batch, list[int]]:
    """Return prompts of one modality as a batch, and the index in `prompts` of each prompt of the batch."""
    order = np.argsort([len(prompt.token_ids) for prompt in prompts], kind="stable").tolist()
    ordered = [prompts[i] for i in order]
    lengths = [len(prompt.token_ids) for prompt in ordered]
    cu_seqlens = np.zeros(len(prompts) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    types = None
    if any(prompt.token_type_ids is not None for prompt in ordered):
        types = np.concatenate(
            [
                np.zeros(length, np.int32) if prompt.token_type_ids is None else prompt.token_type_ids
                for prompt, length in zip(ordered, lengths, strict=True)
            ]
        ).astype(np.int32, copy=False)

    def numbers(of: Callable[[EncodedPrompt], int | None], default: Sequence[int]) -> NDArray[np.int32] | None:
        """Return a number for each prompt; None where each has the default."""
        given = [of(prompt) for prompt in ordered]
        if not any(given):
            return None
        return np.array(
            [other if number is None else number for number, other in zip(given, default, strict=True)], np.int32
        )

    batch = Batch(
        token_ids=np.concatenate([prompt.token_ids for prompt in ordered]).astype(np.int32, copy=False),
        cu_seqlens=cu_seqlens,
        is_query=np.array([prompt.is_query for prompt in ordered], np.bool_),
        params=[prompt.params for prompt in ordered],
        token_type_ids=types,
        attention_lengths=numbers(lambda prompt: prompt.attention_length, lengths),
        prompt_lengths=numbers(lambda prompt: prompt.prompt_length, lengths),
        groups=_number_groups(ordered),
        modality=ordered[0].modality if ordered else "text",
        inputs=[prompt.input for prompt in ordered if prompt.input is not None],
    )
    return batch, order


def _number_groups(prompts: Sequence[EncodedPrompt]) -> NDArray[np.int32] | None:
    """Return the number of each prompt's group, -1 for none; None where none has one."""
    if not any(prompt.group for prompt in prompts):
        return None
    numbers = {group: number for number, group in enumerate(dict.fromkeys(p.group for p in prompts if p.group))}
    return np.array([-1 if prompt.group is None else numbers[prompt.group] for prompt in prompts], np.int32)


def fit_states(states: States[ArrayT], batch: Batch) -> States[ArrayT]:
    """Fill in where the tokens' rows lie. Raises EngineError unless the states are those of the batch."""
    segments = states.segments or batch.segments
    given: AnyArray = states.rows if states.tokens is None else states.tokens
    expected = len(batch) if states.tokens is None else segments.tokens
    if given is None or len(given) != expected or len(segments) != len(batch):
        shape = None if given is None else tuple(given.shape)
        raise EngineError(
            f"The engine gave {'rows' if states.tokens is None else 'tokens'} of shape {shape} for {len(batch)} "
            f"prompts of {segments.tokens} tokens. It must give one row for each prompt, or for each token."
        )
    return replace(states, segments=segments)
