"""MaxSim over documents of all lengths at once gives what each pair gives alone."""

import numpy as np
import pytest
import torch
from sentence_transformers.util import maxsim_pairwise

from poolkit import ScoreRequest, compute_maxsim_score_batched
from poolkit.contract import Segments
from poolkit.engine.maxsim import maxsim
from poolkit.testing import FakeBackbone, fake_model
from poolkit_tasks.token_embed import TOKEN_EMBED

DIM = 16


def vectors(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    dice = np.random.default_rng(seed)
    return [dice.standard_normal((length, DIM)).astype(np.float32) for length in lengths]


def reference(query: np.ndarray, document: np.ndarray) -> float:
    return float((query.astype(np.float64) @ document.T).max(axis=1).sum())


def test_each_pair_gets_the_score_that_it_gets_alone():
    queries, documents = vectors(3, 1, 32, 7), vectors(50, 1, 2, 180, seed=1)
    scores = compute_maxsim_score_batched(queries, documents)
    expected = [reference(query, document) for query, document in zip(queries, documents, strict=True)]
    # Up to 32 similarities of some 5 each are added up in float32.
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.dtype == np.float32


def test_many_documents_of_one_query_are_scored_in_their_order():
    [query] = vectors(9)
    documents = vectors(*(1 + 7 * number % 40 for number in range(100)), seed=1)
    scores = compute_maxsim_score_batched([query] * 100, documents)
    np.testing.assert_allclose(scores, [reference(query, document) for document in documents], rtol=1e-5)


def test_the_numbers_are_those_of_sentence_transformers():
    queries, documents = vectors(3, 1, 32), vectors(50, 1, 180, seed=1)
    expected = maxsim_pairwise([*map(torch.tensor, queries)], [*map(torch.tensor, documents)])
    np.testing.assert_allclose(compute_maxsim_score_batched(queries, documents), expected, rtol=1e-5)


def test_torch_tensors_are_scored_in_float32():
    queries, documents = vectors(3, 1), vectors(50, 2, seed=1)
    halves = [[torch.tensor(array).bfloat16() for array in side] for side in (queries, documents)]
    scores = compute_maxsim_score_batched(*halves)
    same = compute_maxsim_score_batched(*[[tensor.float().numpy() for tensor in side] for side in halves])
    np.testing.assert_array_equal(scores, same)


def test_a_short_document_is_not_helped_by_the_length_of_others():
    query = np.ones((2, 3), np.float32)
    scores = compute_maxsim_score_batched([query, query], [-query[:1], -np.ones((5, 3), np.float32)])
    assert scores.tolist() == [-6, -6]


def test_a_document_without_vectors_comes_last():
    query = np.ones((2, 3), np.float32)
    scores = compute_maxsim_score_batched([query] * 3, [-query, query[:0], query])
    assert scores.tolist() == [-6, -1e9, 6]


def test_more_vectors_than_one_product_takes_are_scored_in_portions():
    query = np.array([[1, 0], [0, 1]], np.float32)
    dice = np.random.default_rng(0)
    documents = [dice.random((length, 2), np.float32) for length in (70_000, 3, 40_000, 40_000)]
    scores = compute_maxsim_score_batched([query] * 4, documents)
    np.testing.assert_array_equal(scores, [document.max(axis=0).sum() for document in documents])


def test_no_pairs_have_no_scores():
    assert compute_maxsim_score_batched([], []).shape == (0,)


def test_each_query_needs_its_document():
    with pytest.raises(ValueError, match="queries") as error:
        compute_maxsim_score_batched(vectors(3, 1), vectors(50))
    assert str(error.value) == "There are 2 queries and 1 documents; give one for each."


class Counting(FakeBackbone):
    """A backbone with a MaxSim of its own, which keeps what it was given."""

    def __init__(self, task) -> None:
        super().__init__(task)
        self.given: list[tuple[np.ndarray, np.ndarray, list[int]]] = []

    def maxsim(self, query: np.ndarray, documents: np.ndarray, segments: Segments) -> np.ndarray:
        self.given.append((query, documents, segments.sizes))
        return np.array([reference(query, rows) if len(rows) else 7 for rows in segments.split(documents)], np.float32)


def scored_by(backbone, request: ScoreRequest) -> np.ndarray:
    with fake_model("token_embed", backbone=backbone, max_num_seqs=16) as served:
        return served.run("score", request).scores


def test_an_engines_own_maxsim_scores_the_documents_of_a_batch_where_they_lie():
    request = ScoreRequest(queries="the query", documents=["word " * (1 + number % 20) for number in range(60)])
    made = []

    def backbone(task) -> Counting:
        made.append(Counting(task))
        return made[0]

    np.testing.assert_allclose(scored_by(backbone, request), scored_by(FakeBackbone, request), rtol=1e-5)
    assert len(made[0].given) == 4  # once a batch of 16: 60 documents and their query
    for _, documents, sizes in made[0].given:
        assert documents.base is not None  # a view of the batch's rows, not a copy
        assert documents.flags.c_contiguous
        assert len(documents) == sum(sizes)


def test_documents_of_several_queries_in_one_batch_each_meet_their_own():
    texts = [f"{number} " + "word " * (number % 7) for number in range(24)]
    request = ScoreRequest(queries=["one", "two two", "three"] * 8, documents=texts)
    np.testing.assert_allclose(scored_by(Counting, request), scored_by(FakeBackbone, request), rtol=1e-5)
    alone = [
        scored_by(FakeBackbone, ScoreRequest(queries=query, documents=document))[0]
        for query, document in zip(request.queries, texts, strict=True)
    ]
    np.testing.assert_allclose(scored_by(FakeBackbone, request), alone, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_an_engine_need_not_know_the_score_of_a_document_without_vectors(kind):
    engine = Counting(TOKEN_EMBED)
    query, *documents = vectors(3, 4, 0, 9)
    scores = maxsim(kind(query), kind(np.concatenate(documents)), Segments.of([4, 0, 9]), engine=engine.maxsim)
    expected = [reference(query, documents[0]), -1e9, reference(query, documents[2])]
    np.testing.assert_allclose(np.asarray(scores), expected, rtol=1e-5)
    assert len(engine.given) == 1
