"""Lays prompts of any lengths end to end in one flat batch, shortest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from poolkit.contract import Batch, States
from poolkit.engine.arrays import AnyArray, ArrayT
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import EncodedPrompt, Group

__all__ = ["fit_states", "lay_out"]


def lay_out(prompts: Sequence[EncodedPrompt]) -> tuple[Batch, list[int]]:
    """Return prompts of one modality as a batch, and the index in `prompts` of each prompt of the batch."""
    lengths = [len(prompt.token_ids) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    ordered, lengths = [prompts[i] for i in order], [lengths[i] for i in order]
    batch = Batch(
        token_ids=_join([prompt.token_ids for prompt in ordered]),
        cu_seqlens=np.array([0, *accumulate(lengths)], np.int32),
        is_query=np.array([prompt.is_query for prompt in ordered], np.bool_),
        params=[prompt.params for prompt in ordered],
        token_type_ids=_token_types([prompt.token_type_ids for prompt in ordered], lengths),
        attention_lengths=_numbers([prompt.attention_length for prompt in ordered], lengths),
        prompt_lengths=_numbers([prompt.prompt_length for prompt in ordered], lengths),
        groups=_number_groups([prompt.group for prompt in ordered]),
        modality=ordered[0].modality if ordered else "text",
        inputs=[prompt.input for prompt in ordered if prompt.input is not None],
    )
    return batch, order


def _join(arrays: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the arrays end to end; one alone as it is."""
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return joined.astype(np.int32, copy=False)


def _token_types(types: Sequence[NDArray[np.int32] | None], lengths: Sequence[int]) -> NDArray[np.int32] | None:
    """Return the type of each token; None where all are of type 0."""
    if not [given for given in types if given is not None]:
        return None
    return _join(
        [np.zeros(length, np.int32) if given is None else given for given, length in zip(types, lengths, strict=True)]
    )


def _numbers(given: Sequence[int | None], default: Sequence[int]) -> NDArray[np.int32] | None:
    """Return a number for each prompt; None where none has one but 0 or the default."""
    if not any(given):
        return None
    return np.array(
        [other if number is None else number for number, other in zip(given, default, strict=True)], np.int32
    )


def _number_groups(groups: Sequence[Group | None]) -> NDArray[np.int32] | None:
    """Return the number of each prompt's group, -1 for none; None where none has one."""
    distinct = [group for group in dict.fromkeys(groups) if group is not None]
    if not distinct:
        return None
    number_of: dict[Group | None, int] = {None: -1, **{group: number for number, group in enumerate(distinct)}}
    return np.array([number_of[group] for group in groups], np.int32)


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
    return states if states.segments is segments else replace(states, segments=segments)
