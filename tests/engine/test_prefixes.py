"""A common start of a batch's prompts runs once where the engine can do so, and the answers are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from closeness import assert_close
from poolkit import LLM, States
from poolkit.contract import Batch, EncodedPrompt, ResolvedParams
from poolkit.engine import torch as torch_engine
from poolkit.engine.batch import lay_out
from poolkit.engine.prefixes import FEWEST_TOKENS, run_batch, share_prefixes
from poolkit.engine.torch.backbone import TorchBackbone
from poolkit.errors import EngineError
from poolkit.tokenization.truncation import common_prefix
from reading import read
from rerankers import KNOWN, make_reranker

pytestmark = pytest.mark.usefixtures("one_thread")

CAUSAL = ["qwen2", "qwen3", "qwen3_sliding", "llama", "gemma"]


def batch_of(texts: Sequence[Sequence[int]]) -> Batch:
    batch, _ = lay_out([EncodedPrompt(np.array(ids, np.int32), ResolvedParams()) for ids in texts])
    return batch


def random_texts(seed: int) -> list[list[int]]:
    """Return texts in whose midst some begin alike, some of these further than others, and some are the same."""
    dice = np.random.default_rng(seed)

    def draw(low: int, high: int) -> list[int]:
        return dice.integers(0, 50, dice.integers(low, high)).tolist()

    starts = [draw(10, 90) for _ in range(4)]
    starts += [start + draw(10, 60) for start in starts[:2]]
    texts = [starts[dice.integers(len(starts))] + draw(0, 30) for _ in range(60)] + [draw(1, 40) for _ in range(20)]
    return [*texts, texts[0], texts[1][:20]]


class Summing:
    """A causal model: a token's state is the sum of the tokens up to it, each weighed by its position."""

    decisions = ()
    shares_prefixes = True

    def __init__(self) -> None:
        self.tokens_run: list[int] = []

    def __call__(self, batch: Batch) -> States[np.ndarray]:
        self.tokens_run.append(batch.segments.tokens)
        states: list[np.ndarray] = []
        for place, ids in enumerate(batch.segments.split(batch.token_ids)):
            before = -1 if batch.prefixes is None else int(batch.prefixes[place])
            assert before < place
            start = states[before] if before >= 0 else np.zeros((0, 1))
            weights = np.arange(len(start), len(start) + len(ids)) + 1
            sums = np.cumsum(ids.astype(np.float64) * weights) + (start[-1, 0] if len(start) else 0)
            states.append(sums[:, None])
        tokens = np.concatenate(states)
        return States(tokens, taps={0: -tokens})


@pytest.mark.parametrize("seed", range(20))
def test_states_are_those_of_the_whole_prompts(seed):
    batch, model = batch_of(random_texts(seed)), Summing()
    expected, actual = model(batch), run_batch(model, batch)
    np.testing.assert_array_equal(actual.tokens, expected.tokens)
    np.testing.assert_array_equal(actual.taps[0], expected.taps[0])
    whole, shared = model.tokens_run
    assert shared < 0.7 * whole


@pytest.mark.parametrize("seed", range(20))
def test_what_runs_is_laid_out_as_the_contract_says(seed):
    shared = share_prefixes(batch_of(random_texts(seed)))
    assert shared is not None
    prefixes, sizes = shared.batch.prefixes, np.array(shared.batch.segments.sizes)
    alone = int((prefixes < 0).sum())
    assert (prefixes[:alone] == -1).all()
    assert (prefixes[alone:] >= 0).all()
    assert (prefixes[alone:] < alone).all()
    assert (sizes > 0).all()
    assert sizes[:alone].tolist() == sorted(sizes[:alone])
    behind = list(zip(prefixes[alone:].tolist(), sizes[alone:].tolist(), strict=True))
    assert behind == sorted(behind)


def test_a_query_and_its_hundred_documents_are_the_query_once_and_each_document():
    dice = np.random.default_rng(0)
    query = dice.integers(0, 500, 60).tolist()
    documents = [[1000 + number, *dice.integers(0, 500, number % 50).tolist()] for number in range(100)]
    model = Summing()
    run_batch(model, batch_of([query + document for document in documents]))
    assert model.tokens_run == [60 + sum(map(len, documents))]


def test_documents_of_two_queries_share_each_its_own_query_behind_one_instruction():
    instruction, queries = list(range(100, 140)), ([1] * 30, [2] * 30)
    texts = [instruction + query + [1000 + number] for query in queries for number in range(10)]
    model = Summing()
    run_batch(model, batch_of(texts))
    assert model.tokens_run == [2 * (40 + 30) + 20]


@pytest.mark.parametrize(
    "texts",
    [
        [[1] * 50],
        [[1] * 15 + [number] for number in range(2, 9)],  # too short to be worth it
        [[1] * 20 + [2], [1] * 20 + [3], *([number] * 100 for number in range(4, 9))],  # too little of the batch
        [[number] * 40 for number in range(9)],
        [[5], [5], [5]],
    ],
)
def test_a_batch_in_which_little_would_be_saved_runs_as_it_is(texts):
    assert share_prefixes(batch_of(texts)) is None


def test_very_many_prompts_that_each_go_on_from_another_are_no_trouble():
    batch, model = batch_of([[7] * length for length in range(17, 1500, 2)]), Summing()
    np.testing.assert_array_equal(run_batch(model, batch).tokens, model(batch).tokens)


def test_an_engine_that_does_not_say_that_it_can_gets_whole_prompts():
    class Plain(Summing):
        shares_prefixes = False

    batch, model = batch_of([[1] * 40 + [number] for number in range(9)]), Plain()
    run_batch(model, batch)
    assert model.tokens_run == [9 * 41]


def test_an_engine_that_gives_other_states_than_a_row_for_each_token_is_told():
    class Pooling(Summing):
        def __call__(self, batch: Batch) -> States[np.ndarray]:
            return States(rows=np.zeros((len(batch), 1)))

    with pytest.raises(EngineError) as error:
        run_batch(Pooling(), batch_of([[1] * 40 + [number] for number in range(9)]))
    assert str(error.value) == "The engine shares prefixes, so that it must give a row for each token."


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("seed", range(3))
def test_torch_gives_the_same_hidden_states(checkpoint, family, seed):
    """The start is longer than the window of the sliding family, and shorter than some of what is behind it."""
    backbone = torch_engine.load_backbone(read(checkpoint(family), dtype="float32"), taps=(0, 2))
    assert isinstance(backbone, TorchBackbone)
    assert backbone.shares_prefixes
    batch = batch_of(random_texts(seed))
    expected, actual = backbone(batch), run_batch(backbone, batch)
    assert actual.tokens is not None
    assert_close(actual.tokens, expected.tokens)
    assert_close(actual.taps[2], expected.taps[2])
    assert torch.equal(actual.taps[0], expected.taps[0])


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "modernbert", "gemma3"])
def test_torch_shares_nothing_where_tokens_see_those_behind_them(checkpoint, family):
    folder = checkpoint(family)
    overrides = {"use_bidirectional_attention": True} if family == "gemma3" else {}
    backbone = torch_engine.load_backbone(read(folder, dtype="float32", hf_overrides=overrides))
    assert isinstance(backbone, TorchBackbone)
    assert not backbone.shares_prefixes


def test_padded_shares_nothing(checkpoint):
    backbone = torch_engine.load_backbone(read(checkpoint("qwen3"), dtype="float32", batching="padded"))
    assert isinstance(backbone, TorchBackbone)
    assert not backbone.shares_prefixes


@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_a_reranker_reads_the_query_once_and_gives_the_same_scores(tmp_path, checkpoint, monkeypatch, family):
    folder = make_reranker(tmp_path, checkpoint, family)
    documents = [f"Document number {number} is about {'cats ' * (number % 5)}." for number in range(40)]
    run, tokens_run = TorchBackbone.__call__, []

    def counting(self: TorchBackbone, batch: Batch) -> States[torch.Tensor]:
        tokens_run.append(batch.segments.tokens)
        return run(self, batch)

    monkeypatch.setattr(TorchBackbone, "__call__", counting)
    with LLM(str(folder), dtype="float32") as llm:
        outputs = llm.score("Where are the cats?", documents, use_tqdm=False)
        counted = list(tokens_run)
        alone = [llm.score("Where are the cats?", document, use_tqdm=False)[0] for document in documents]
    assert_close([output.outputs.score for output in outputs], [output.outputs.score for output in alone])
    prompts = [np.array(output.prompt_token_ids) for output in outputs]
    common = min(common_prefix(prompts[0], ids) for ids in prompts)
    assert common >= FEWEST_TOKENS
    assert sum(counted) <= sum(len(ids) - common for ids in prompts) + len(counted) * common
    assert len(counted) < len(prompts) / 2
