"""The engine `cpu` runs what prompts begin with once: each prompt's states are the same bits as without."""

from __future__ import annotations

import numpy as np
import pytest

from poolkit.contract import EncodedPrompt, ResolvedParams
from poolkit.engine.batch import lay_out
from poolkit.engine.prefixes import run_batch, share_prefixes
from poolkit_plugins import cpu
from poolkit_plugins.cpu._backbone import NativeBackbone
from poolkit_plugins.cpu._self_check import split_longest
from reading import read

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
"""Of a small model that the kernels take."""


def dtypes() -> tuple[str, ...]:
    """Return those of the kernels that run here."""
    try:
        from poolkit_cpu_kernels import Kernels, load
    except ModuleNotFoundError:
        return ()
    kernels = load()
    return tuple(kernels.dtypes) if isinstance(kernels, Kernels) else ()


needs_kernels = pytest.mark.skipif(not dtypes(), reason="no library of poolkit-cpu-kernels runs here")


def load(folder, **settings) -> NativeBackbone:
    backbone = cpu.load_backbone(read(folder, **{"engine": "cpu", "dtype": "float32", **settings}))
    assert isinstance(backbone, NativeBackbone)
    return backbone


def batch_of_documents(start: int, seed: int):
    """Return one query of so many tokens with documents of all lengths, and a prompt that begins otherwise."""
    dice = np.random.default_rng(seed)
    query = dice.integers(5, 300, start)
    documents = [np.concatenate([query, dice.integers(5, 300, length)]) for length in (1, 7, 15, 16, 17, 33, 64, 65)]
    prompts = [*documents, dice.integers(5, 300, 9)]
    return lay_out([EncodedPrompt(ids.astype(np.int32), ResolvedParams()) for ids in prompts])[0]


@needs_kernels
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "gemma"])
@pytest.mark.parametrize("dtype", dtypes())
def test_states_are_the_same_bits_as_those_of_whole_prompts(checkpoint, family, dtype):
    backbone = load(checkpoint(family, sentence_transformers=False, **WIDTHS), dtype=dtype)
    assert backbone.shares_prefixes
    for start in (16, 31, 32, 33, 100):  # at and beside the edges of blocks of keys
        batch = batch_of_documents(start, seed=start)
        assert share_prefixes(batch) is not None
        np.testing.assert_array_equal(run_batch(backbone, batch).tokens, backbone(batch).tokens)


@needs_kernels
def test_a_model_whose_tokens_see_those_behind_them_shares_nothing(checkpoint):
    folder = checkpoint(
        "bert", sentence_transformers=False, hidden_size=64, intermediate_size=128, num_attention_heads=2
    )
    assert not load(folder).shares_prefixes


@needs_kernels
def test_the_self_check_runs_a_prompt_in_two_halves(checkpoint, monkeypatch):
    folder = checkpoint("qwen3", sentence_transformers=False, **WIDTHS)
    run = NativeBackbone.__call__

    def wrong(self, batch):
        states = run(self, batch)
        if batch.prefixes is not None:
            states.tokens[-1] *= 1.001
        return states

    monkeypatch.setattr(NativeBackbone, "__call__", wrong)
    assert not load(folder).shares_prefixes


def test_the_longest_prompt_is_split_where_no_token_is_lost():
    batch = batch_of_documents(20, seed=0)
    halves, rows = split_longest(batch)
    np.testing.assert_array_equal(halves.token_ids, batch.token_ids[rows])
    assert halves.segments.sizes == [42, 43]
    assert halves.prefixes.tolist() == [-1, 0]
