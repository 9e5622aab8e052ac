"""Poolers without weights, all that is done to rows, and MaxSim give the same for numpy arrays as for torch tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poolkit import (
    Activation,
    Batch,
    LateInteractionParams,
    PooledRows,
    ResolvedParams,
    States,
    compute_maxsim_score_batched,
)
from poolkit.contract import EncodedPrompt, MultiVectorSpec, NormalizeSpec, PoolingMode
from poolkit.engine.batch import fit_states, lay_out
from poolkit.engine.finish import Finish
from poolkit.engine.poolers.layers import load_layers
from poolkit.engine.poolers.pooling import POOL, pool_cls, pool_mean
from poolkit.engine.poolers.tokens import TokenPooler
from poolkit.engine.poolers.vector import VectorPooler
from poolkit.engine.queries import QueryStore

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
"""The two libraries add up the same float32 numbers in another order."""

DIM = 6
LENGTHS = (4, 1, 9, 4)
PARAMS = ResolvedParams(activates=True)


def make_batch(*, params: ResolvedParams = PARAMS, prompt_length: int = 0, same: bool = True) -> Batch:
    """Return a batch of four prompts, the last one a query; where not the `same`, each has further params."""
    dice = np.random.default_rng(0)
    further = [params, replace(params, dimensions=3), replace(params, activates=False), replace(params, columns=(4, 1))]
    prompts = [
        EncodedPrompt(
            dice.integers(0, 20, length, np.int32),
            params if same else further[place],
            is_query=place == 3,
            prompt_length=min(prompt_length, length - 1),
        )
        for place, length in enumerate(LENGTHS)
    ]
    batch, _ = lay_out(prompts)
    return batch


def both(batch: Batch, *, rows: bool = False):
    """Return the same states as numpy arrays and as torch tensors."""
    dice = np.random.default_rng(1)
    drawn = dice.standard_normal((len(batch) if rows else batch.segments.tokens, DIM)).astype(np.float32)
    drawn[0] = 0
    for array in (drawn, torch.from_numpy(drawn)):
        yield fit_states(States(rows=array) if rows else States(array), batch)


def assert_agree(pooled, other) -> None:
    assert isinstance(pooled.rows, np.ndarray)
    assert isinstance(other.rows, torch.Tensor)
    assert pooled.lengths == other.lengths
    np.testing.assert_allclose(pooled.rows, other.rows, **TOLERANCE)


@pytest.mark.parametrize("prompt_length", [0, 2])
@pytest.mark.parametrize("modes", [*((mode,) for mode in PoolingMode), tuple(PoolingMode)])
def test_every_pooling_mode(modes, prompt_length):
    batch = make_batch(prompt_length=prompt_length)
    assert_agree(*(VectorPooler([POOL[mode] for mode in modes])(states, batch) for states in both(batch)))


@pytest.mark.parametrize("only_for", [None, "query"])
def test_layers_that_have_no_weights(tmp_path, only_for):
    layers = load_layers([NormalizeSpec(folder=tmp_path, only_for=only_for)], device="cpu")
    batch = make_batch()
    for rows in (True, False):
        pooler = VectorPooler([pool_mean], token_layers=None if rows else layers, layers=layers)
        assert_agree(*(pooler(states, batch) for states in both(batch, rows=rows)))
    assert_agree(*(TokenPooler(layers=layers)(states, batch) for states in both(batch)))


@pytest.mark.parametrize("kept_token_ids", [(), (1, 2, 3, 5)])
def test_the_tokens_that_are_answered(kept_token_ids):
    spec = MultiVectorSpec(query_length=9, document_length=9, kept_token_ids=kept_token_ids)
    batch = make_batch()
    pooler = TokenPooler(spec=spec, skipped=[3, 7, 11])
    pooled = [pooler(states, batch) for states in both(batch)]
    assert_agree(*pooled)
    assert sum(pooled[0].lengths) < batch.segments.tokens


def outputs_of(pooled: PooledRows, batch: Batch, activation: Activation, **calibration: float):
    return Finish("a model", activation, QueryStore(), **calibration)(pooled, batch)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("activation", [kind for kind in Activation if kind is not Activation.MODEL])
def test_everything_that_is_done_to_rows(activation, per_token):
    batch = make_batch(same=False)
    pooler = TokenPooler() if per_token else VectorPooler([pool_cls])
    found = [outputs_of(pooler(states, batch), batch, activation, mean=0.5, sigma=2.0) for states in both(batch)]
    for output, other in zip(*found, strict=True):
        assert output.data.dtype == other.data.dtype == np.float32
        np.testing.assert_allclose(output.data, other.data, **TOLERANCE)
    assert {output.data.shape[-1] for output in found[0]} == {DIM, 3, 2}


def test_sparse_rows_and_parts():
    batch = make_batch()
    values, columns, lengths = np.arange(1, 8, dtype=np.float32), np.array([5, 1 << 25, 2, 3, 9, 9, 0]), [2, 0, 4, 1]
    found = [
        outputs_of(
            PooledRows(
                as_array(values),
                lengths,
                as_array(columns),
                {"again": PooledRows(as_array(values), lengths, as_array(columns))},
            ),
            batch,
            Activation.SOFTMAX,
        )
        for as_array in (np.asarray, torch.from_numpy)
    ]
    for outputs in found:
        assert [output.data.tolist() for output in outputs] == [[1, 2], [], [3, 4, 5, 6], [7]]
        assert [output.indices.tolist() for output in outputs] == [[5, 1 << 25], [], [2, 3, 9, 9], [0]]
        assert {output.indices.dtype for output in outputs} == {np.dtype(np.int32)}
        for output in outputs:
            np.testing.assert_array_equal(output.parts["again"], output.data)
            np.testing.assert_array_equal(output.part_indices["again"], output.indices)


def test_rows_at_a_token():
    batch = make_batch(params=ResolvedParams(step_tag_id=int(make_batch().token_ids[-1])))
    found = [outputs_of(TokenPooler()(states, batch), batch, Activation.IDENTITY) for states in both(batch)]
    expected = [int((ids == batch.token_ids[-1]).sum()) for ids in batch.segments.split(batch.token_ids)]
    for outputs in found:
        assert [len(output.data) for output in outputs] == expected


def test_late_interaction():
    batch = make_batch()
    keep = ResolvedParams(activates=True, late_interaction=LateInteractionParams("cache_query", "q", 3))
    score = ResolvedParams(activates=True, late_interaction=LateInteractionParams("score_doc", "q"))
    batch = replace(batch, params=[score, score, keep, score])
    found = [outputs_of(TokenPooler()(states, batch), batch, Activation.NORMALIZE) for states in both(batch)]
    for output, other in zip(*found, strict=True):
        np.testing.assert_allclose(output.data, other.data, **TOLERANCE)
    assert [output.data.shape for output in found[0]] == [(1,), (1,), (4, DIM), (1,)]


def test_maxsim():
    dice = np.random.default_rng(2)
    queries = [dice.standard_normal((length, DIM)).astype(np.float32) for length in (3, 1, 5)]
    documents = [dice.standard_normal((length, DIM)).astype(np.float32) for length in (4, 0, 9)]
    scores = compute_maxsim_score_batched(queries, documents)
    others = compute_maxsim_score_batched(list(map(torch.from_numpy, queries)), list(map(torch.from_numpy, documents)))
    np.testing.assert_allclose(scores, others, **TOLERANCE)
    mixed = compute_maxsim_score_batched(queries, list(map(torch.from_numpy, documents)))
    np.testing.assert_array_equal(mixed, scores)
