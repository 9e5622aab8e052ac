"""Batches as the packed pass lays them out on a CPU: in few sizes, with little filler, none of which is ever seen."""

from __future__ import annotations

from random import Random

import pytest
import torch

from checkpoints import make_checkpoint
from engines import load_engine, run
from poolkit.contract import EncodedPrompt, ResolvedParams
from poolkit.engine.batch import lay_out
from poolkit.engine.torch.batch import LARGEST_EXACT, SIZES_PER_DOUBLING, SMALLEST, PackedBatch, round_up
from poolkit.engine.torch.loading import Placement, load_weights
from reading import read

pytestmark = pytest.mark.usefixtures("one_thread")

LARGEST = 16384


def test_sizes_are_few_and_close_to_what_is_asked():
    sizes = [round_up(tokens) for tokens in range(LARGEST + 1)]
    assert sizes[SMALLEST : LARGEST_EXACT + 1] == list(range(SMALLEST, LARGEST_EXACT + 1))
    assert sizes == sorted(sizes)
    for tokens, rows in enumerate(sizes[SMALLEST:], SMALLEST):
        assert tokens <= rows == round_up(rows)
        assert (rows - tokens) * SIZES_PER_DOUBLING < tokens
    assert len(set(sizes)) <= LARGEST_EXACT + 1 + SIZES_PER_DOUBLING * 9  # 32 to 16384 doubles nine times


def test_random_batches_reach_the_model_in_few_sizes(tmp_path):
    """oneDNN makes and keeps an object for each number of rows that it multiplies."""
    folder = make_checkpoint(tmp_path / "bert", "bert")
    info = read(folder, dtype="float32")
    embeddings = load_weights(info, Placement.resolve(info.config)).embeddings
    dice = Random(0)
    totals, seen = set(), []
    for _ in range(500):
        lengths = [dice.randint(2, 128) for _ in range(dice.randint(1, 40))]
        batch, _ = lay_out([EncodedPrompt(_ids(length, dice), ResolvedParams()) for length in lengths])
        packed = PackedBatch.of(batch, torch.device("cpu"))
        seen.append(embeddings(packed.token_ids[None], position_ids=packed.positions(0)[None]).shape[1])
        totals.add(sum(lengths))
        assert sum(lengths) <= seen[-1] == packed.rows == round_up(sum(lengths))
    assert len(totals) > 400
    assert len(set(seen)) < len(totals) / 4
    assert len(set(seen)) <= LARGEST_EXACT + SIZES_PER_DOUBLING * 8


def test_filler_rows_change_no_answer(checkpoint):
    """Also where positions go up to the last that the model has, and where they start past the padding token's id."""
    for family in ("bert", "roberta", "mpnet", "modernbert", "qwen3"):
        engine = load_engine(checkpoint(family))
        prompts = [[5 + place % 700 for place in range(length)] for length in (200, 33, 3)]
        assert round_up(sum(map(len, prompts))) > sum(map(len, prompts))
        together, alone = run(engine, prompts), [run(engine, [prompt])[0] for prompt in prompts]
        for vector, expected in zip(together, alone, strict=True):
            assert abs(vector - expected).max() < 1e-5


def _ids(length: int, dice: Random):
    return torch.tensor([dice.randint(5, 700) for _ in range(length)], dtype=torch.int32).numpy()
