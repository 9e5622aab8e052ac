"""Guards the torch engine by counts: forward passes, and the rows that are computed beside those of the prompts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import pytest
import torch

from checkpoints import VOCABULARY, make_checkpoint, real_texts
from poolkit import LLM, PoolingParams

TEXTS = 240
BUDGET = 1024
PASSES_PER_LEAST = 2
"""Forward passes over the fewest that the token budget allows. Counted: 1.1 to 1.2."""
ROUNDING = 1 / 16
"""Rows of a batch that may be filler, so that oneDNN meets few sizes of batches. Counted: none."""


@contextmanager
def counted_batches() -> Iterator[list[int]]:
    """Count the rows of each batch whose tokens are looked up among a model's embeddings, in all threads."""
    rows: list[int] = []
    lock = threading.Lock()
    forward = torch.nn.Embedding.forward

    def counted(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        if self.num_embeddings == VOCABULARY:
            with lock:
                rows.append(ids.numel())
        return forward(self, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Embedding, "forward", counted)
        yield rows


@pytest.fixture(scope="module", params=["bert", "modernbert", "qwen3"])
def batches(request, tmp_path_factory) -> tuple[list[int], int]:
    """The rows of each batch of a call, and the tokens of its texts."""
    folder = make_checkpoint(tmp_path_factory.mktemp("model") / "model", request.param)
    with LLM(str(folder), engine="torch", batching="packed", max_num_batched_tokens=BUDGET) as llm:
        with counted_batches() as rows:
            outputs = llm.embed(
                real_texts(TEXTS), pooling_params=PoolingParams(truncate_prompt_tokens=-1), use_tqdm=False
            )
        return list(rows), sum(len(output.prompt_token_ids) for output in outputs)


def test_texts_of_all_lengths_fill_the_forward_passes(batches):
    rows, tokens = batches
    assert len(rows) <= PASSES_PER_LEAST * ceil(tokens / BUDGET)


def test_packed_batches_hold_no_padding_but_for_the_rounding(batches):
    rows, tokens = batches
    assert tokens <= sum(rows) <= tokens * (1 + ROUNDING)
