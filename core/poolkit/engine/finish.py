"""From pooled rows to each prompt's output: calibrated, cut, activated, scored, checked, as numpy.

The same for every engine. What request, operator, task and model want stands in each prompt's `ResolvedParams`; nothing
is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

from poolkit.contract import Activation, PooledOutput, PooledRows, Segments
from poolkit.engine.arrays import NUMPY, AnyArray, ArrayT, Operations, operations_of
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.contract import Batch, ResolvedParams
    from poolkit.engine.queries import QueryStore, ScoredDocuments

__all__ = ["Finish", "NotFiniteError"]

ScalarT = TypeVar("ScalarT", bound=np.generic)

ACTIVATIONS: Mapping[Activation, Callable[[Operations[AnyArray], AnyArray], AnyArray]] = {
    Activation.IDENTITY: lambda operations, rows: rows,  # noqa: ARG005
    Activation.NORMALIZE: lambda operations, rows: operations.normalize(rows),
    Activation.SOFTMAX: lambda operations, rows: operations.softmax(rows),
    Activation.SIGMOID: lambda operations, rows: operations.sigmoid(rows),
}


class NotFiniteError(EngineError):
    """Some of a batch's numbers are NaN or infinite."""


class _Treatment(NamedTuple):
    """The last steps for a prompt's rows, done once for all prompts of a batch with the same parameters."""

    activates: bool
    dimensions: int | None
    columns: tuple[int, ...] | None


AS_IT_IS = _Treatment(activates=False, dimensions=None, columns=None)


@dataclass(frozen=True, slots=True)
class Finish(Generic[ArrayT]):
    """The last steps for the rows of one served task.

    Attributes:
        model: its name, for messages.
        activation: applied to the rows of prompts that are activated; those that choose columns get a softmax instead.
        queries: what documents are scored against.
        mean: taken from the rows before anything else.
        sigma: divides them after that.
        last: the last step of each prompt's output; None for none.
    """

    model: str
    activation: Activation
    queries: QueryStore[ArrayT]
    mean: float | None = None
    sigma: float | None = None
    last: Callable[[PooledOutput, ResolvedParams], PooledOutput] | None = None

    def __call__(self, pooled: PooledRows[ArrayT], batch: Batch) -> list[PooledOutput]:
        """Return the output of each prompt, in the batch's order.

        Sparse rows and parts are returned as they are.

        Raises EngineError where a number is NaN or infinite, or the rows are not those of the batch's prompts.
        """
        operations = operations_of(pooled.rows)
        parts = _asked_parts(pooled, batch)
        _check(pooled, prompts=len(batch), is_part=False)
        for part in parts.values():
            _check(part, prompts=len(batch), is_part=True)
        raw = self._calibrate(operations.float32(pooled.rows), is_sparse=pooled.indices is not None)
        treatments = _treatments(batch.params, is_sparse=pooled.indices is not None)
        treated = {treatment: self._treat(raw, treatment) for treatment in dict.fromkeys(treatments)}
        scored = self._score(treated, treatments, pooled, batch)
        if scored:
            left = _left(scored, treated, treatments, pooled)
            arrays = [*(documents.scores for documents in scored), *left.values()]
        else:
            arrays = list(treated.values())
        of_parts = [part.rows for part in parts.values()]
        is_finite = operations.is_finite(raw)
        if of_parts:
            is_finite = operations.concatenate([is_finite, *map(operations.is_finite, of_parts)])
        [checks, *numbers] = operations.to_numpy([is_finite, *of_parts, *arrays], np.float32)
        if not checks.all():
            raise NotFiniteError(
                f"The model {self.model} gave NaN or infinity. That is the server's fault, not the prompt's; dtype "
                "float32 may help."
            )
        self.queries.count_uses(scored)
        data = numbers[len(parts) :]
        if scored:
            of_prompt = dict(zip(left, data[len(scored) :], strict=True))
            for documents, scores in zip(scored, data, strict=False):
                of_prompt.update(zip(documents.prompts, scores[:, None], strict=True))  # (1,) each
            data = [of_prompt[i] for i in range(len(batch))]
        elif len(treated) == 1:
            data = list(_split(data[0], pooled.lengths))
        else:
            rows_of = {wanted: _split(rows, pooled.lengths) for wanted, rows in zip(treated, data, strict=True)}
            data = [rows_of[wanted][i] for i, wanted in enumerate(treatments)]
        outputs = _outputs(pooled, data, dict(zip(parts, numbers, strict=False)), batch)
        if self.last is None:
            return outputs
        return [self.last(output, params) for output, params in zip(outputs, batch.params, strict=True)]

    def _score(
        self,
        treated: Mapping[_Treatment, ArrayT],
        treatments: Sequence[_Treatment],
        pooled: PooledRows[ArrayT],
        batch: Batch,
    ) -> list[ScoredDocuments[ArrayT]]:
        """Score the documents of late interaction, and keep the queries."""
        late = [params.late_interaction for params in batch.params]
        if pooled.lengths is None or not any(late):
            return []
        return self.queries.score(late, [treated[wanted] for wanted in treatments], Segments.of(pooled.lengths))

    def _calibrate(self, rows: AnyArray, *, is_sparse: bool) -> AnyArray:
        if is_sparse or (self.mean, self.sigma) == (None, None):
            return rows
        return (rows - (self.mean or 0)) / (self.sigma or 1)

    def _treat(self, rows: AnyArray, treatment: _Treatment) -> AnyArray:
        activation = self.activation
        if treatment.columns is not None:
            rows, activation = rows[:, list(treatment.columns)], Activation.SOFTMAX
        if treatment.dimensions is not None:
            rows = rows[:, : treatment.dimensions]
        return ACTIVATIONS[activation](operations_of(rows), rows) if treatment.activates else rows


def _left(
    scored: Sequence[ScoredDocuments[ArrayT]],
    treated: Mapping[_Treatment, ArrayT],
    treatments: Sequence[_Treatment],
    pooled: PooledRows[ArrayT],
) -> dict[int, ArrayT]:
    """Return the rows of each prompt that was not scored, by its place."""
    is_scored = {prompt for documents in scored for prompt in documents.prompts}
    rows_of = {wanted: operations_of(rows).split(rows, pooled.lengths or ()) for wanted, rows in treated.items()}
    return {i: rows_of[wanted][i] for i, wanted in enumerate(treatments) if i not in is_scored}


def _treatments(params: Sequence[ResolvedParams], *, is_sparse: bool) -> list[_Treatment]:
    """Return the treatment of each prompt. Those of one request mostly share their parameters."""
    treatments = {
        number: AS_IT_IS if is_sparse else _Treatment(one.activates, one.dimensions, one.columns)
        for number, one in {id(one): one for one in params}.items()
    }
    return [treatments[id(one)] for one in params]


def _asked_parts(pooled: PooledRows[ArrayT], batch: Batch) -> dict[str, PooledRows[ArrayT]]:
    """Return the parts that any prompt asks for: the others are not even copied."""
    asked = set(map(attrgetter("parts"), batch.params))
    names = dict.fromkeys(pooled.parts if None in asked else (name for some in asked for name in some or ()))
    unknown = [name for name in names if name not in pooled.parts]
    if unknown:
        raise EngineError(
            f"The task's head gave no part {unknown[0]!r}, which a prompt asks for. It gave "
            f"{', '.join(pooled.parts) or 'none'}."
        )
    return {name: pooled.parts[name] for name in names}


def _check(pooled: PooledRows[AnyArray], *, prompts: int, is_part: bool) -> None:
    """Raise EngineError unless the rows can be shared out among the prompts."""
    shape, lengths, indices = tuple(pooled.rows.shape), pooled.lengths, pooled.indices
    rows = shape[0] if shape else -1
    is_shared = rows == prompts if lengths is None else len(lengths) == prompts and sum(lengths) == rows
    if indices is not None:
        is_shaped = shape == tuple(indices.shape) == (rows,) and lengths is not None
    else:
        is_shaped = is_part or len(shape) == 2
    if is_shared and is_shaped:
        return
    given = "no lengths" if lengths is None else f"{len(lengths)} lengths that add up to {sum(lengths)}"
    beside = "" if indices is None else f", with indices of shape {tuple(indices.shape)},"
    raise EngineError(
        f"The task's head gave rows of shape {shape} and {given}{beside} for {prompts} prompts. It must give one row "
        "(dim,) for each, or in lengths how many rows each has; with indices, one value for each index."
    )


def _outputs(
    pooled: PooledRows[ArrayT],
    data: Sequence[NDArray[np.float32]],
    parts: Mapping[str, NDArray[np.float32]],
    batch: Batch,
) -> list[PooledOutput]:
    """Return the output of each prompt: its data, and its share of the parts that it asks for."""
    shares = {name: _split(numbers, pooled.parts[name].lengths) for name, numbers in parts.items()}
    indices = {name: _indices(pooled.parts[name]) for name in parts if pooled.parts[name].indices is not None}
    own = _indices(pooled) if pooled.indices is not None else None
    outputs = []
    for i, (params, token_ids) in enumerate(zip(batch.params, batch.segments.split(batch.token_ids), strict=True)):
        rows = data[i]
        if params.step_tag_id is not None:
            rows = rows[token_ids == params.step_tag_id]
        if own is None and not parts:
            outputs.append(PooledOutput(rows, token_ids))
            continue
        names = parts if params.parts is None else params.parts
        outputs.append(
            PooledOutput(
                rows,
                token_ids,
                {name: shares[name][i] for name in names},
                indices=None if own is None else own[i],
                part_indices={name: indices[name][i] for name in names if name in indices},
            )
        )
    return outputs


def _indices(pooled: PooledRows[ArrayT]) -> Sequence[NDArray[np.int32]]:
    assert pooled.indices is not None
    [indices] = operations_of(pooled.indices).to_numpy([pooled.indices], np.int32)
    return _split(indices, pooled.lengths)


def _split(array: NDArray[ScalarT], lengths: Sequence[int] | None) -> Sequence[NDArray[ScalarT]]:
    return list(array) if lengths is None else NUMPY.split(array, lengths)
