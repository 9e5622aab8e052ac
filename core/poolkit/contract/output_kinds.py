"""Kinds of output, as data: what the parts of poolkit that work on outputs ask of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from poolkit.contract.model_info import ModelInfo
from poolkit.contract.outputs import Output, PooledOutput
from poolkit.contract.params import ResolvedParams

if TYPE_CHECKING:
    import numpy as np

    from poolkit.contract.encoder import TokenIds

__all__ = ["OUTPUT_KINDS", "SPARSE", "Combine", "OutputKind"]

Combine: TypeAlias = Literal["best", "mean"]
"""The way to combine the scores of a text's chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputKind:
    """A kind of output. poolkit's own are entries like those that a task defines for what its head gives.

    Attributes:
        name: what messages call it.
        shape: of `PooledOutput.data`, for people: "(dim,)".
        finish: the last step of each prompt's output, after it was cut and activated; None for none.
        join: puts together the outputs for the chunks of a prompt; None if they cannot be, so that chunking refuses.
        to_json: what the operation `pooling` returns of an output; None for its data, as nested lists.
        fake: draws the output of a prompt of so many tokens in `poolkit.testing`, where the task's `Fake` draws none;
            None where core's own poolers make it of drawn hidden states.
    """

    name: str
    shape: str
    finish: Callable[[PooledOutput, ResolvedParams], PooledOutput] | None = None
    join: Callable[[Sequence[PooledOutput], Combine], PooledOutput] | None = None
    to_json: Callable[[PooledOutput], object] | None = None
    fake: Callable[[np.random.Generator, ModelInfo, int], PooledOutput] | None = None


def _average(outputs: Sequence[PooledOutput], combine: Combine) -> PooledOutput:  # noqa: ARG001 - vectors have no best
    """Average vectors by token count."""
    import numpy as np

    weights = [len(output.prompt_token_ids) for output in outputs]
    row = np.average([output.data for output in outputs], axis=0, weights=weights)
    return PooledOutput(row.astype(np.float32), _token_ids(outputs))


def _combine_scores(outputs: Sequence[PooledOutput], combine: Combine) -> PooledOutput:
    import numpy as np

    rows = np.stack([output.data for output in outputs])  # (chunks, labels)
    row = rows.max(axis=0) if combine == "best" else rows.mean(axis=0)
    return PooledOutput(row.astype(np.float32), _token_ids(outputs))


def _concatenate(outputs: Sequence[PooledOutput], combine: Combine) -> PooledOutput:  # noqa: ARG001 - each token has its row
    import numpy as np

    return PooledOutput(np.concatenate([output.data for output in outputs]), _token_ids(outputs))


def _combine_sparse(outputs: Sequence[PooledOutput], combine: Combine) -> PooledOutput:
    """Combine the values of each column; where a chunk has none, it is 0."""
    import numpy as np

    columns = np.concatenate([output.indices for output in outputs if output.indices is not None])
    values = np.concatenate([output.data for output in outputs])
    distinct, places = np.unique(columns, return_inverse=True)
    combined = np.zeros(len(distinct), np.float32)
    if combine == "best":
        np.maximum.at(combined, places, values)
    else:
        np.add.at(combined, places, values / len(outputs))
    return PooledOutput(combined, _token_ids(outputs), indices=distinct.astype(np.int32))


def _sparse_to_json(output: PooledOutput) -> object:
    assert output.indices is not None
    return {"indices": output.indices.tolist(), "values": output.data.tolist()}


def _draw_sparse(generator: np.random.Generator, model: ModelInfo, tokens: int) -> PooledOutput:
    import numpy as np

    columns = np.unique(generator.integers(0, model.vocab_size, tokens)).astype(np.int32)
    return PooledOutput(generator.random(len(columns), np.float32), np.zeros(0, np.int32), indices=columns)


def _token_ids(outputs: Sequence[PooledOutput]) -> TokenIds:
    import numpy as np

    return np.concatenate([output.prompt_token_ids for output in outputs])


OUTPUT_KINDS: Mapping[Output, OutputKind] = {
    Output.VECTOR: OutputKind(name="vector", shape="(dim,)", join=_average),
    Output.LOGITS: OutputKind(name="logits", shape="(labels,)", join=_combine_scores),
    Output.LABEL_LOGITS: OutputKind(name="label_logits", shape="(labels,)", join=_combine_scores),
    Output.TOKEN_VECTORS: OutputKind(name="token_vectors", shape="(tokens, dim)", join=_concatenate),
    Output.TOKEN_LOGITS: OutputKind(name="token_logits", shape="(tokens, labels)"),
    Output.HIDDEN: OutputKind(name="hidden", shape="(tokens, hidden)"),
}
"""The kinds of what a model produces by itself."""

SPARSE = OutputKind(
    name="sparse",
    shape="(values,)",
    join=_combine_sparse,
    to_json=_sparse_to_json,
    fake=_draw_sparse,
)
"""A value for some columns of a wide vector, as `PooledOutput.indices` says; every other column is 0."""
