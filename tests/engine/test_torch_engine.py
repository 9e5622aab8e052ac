"""The torch engine: what it answers, how it decides its path, and how it fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import make_checkpoint
from closeness import assert_close
from engines import EMBED, as_encoded, decision, load_engine, run
from poolkit.config import PoolerConfig
from poolkit.contract import Output, PoolingParams, PoolingTask
from poolkit.errors import ConfigError, EngineError, ModelError

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 9, 11], [7], [5, 9, 11, 400, 12], [8, 8, 8]]


def test_answers_come_in_the_order_of_the_prompts(checkpoint):
    engine = load_engine(checkpoint("bert"))
    together = run(engine, PROMPTS)
    alone = [run(engine, [prompt])[0] for prompt in PROMPTS]
    assert np.allclose(together, alone, atol=1e-6)
    assert all(vector.dtype == np.float32 and vector.shape == (48,) for vector in together)


def test_dimensions_cut_before_the_vector_is_normalised(checkpoint):
    engine = load_engine(checkpoint("bert", is_matryoshka=True))
    raw = run(engine, PROMPTS, PoolingParams(use_activation=False))
    cut = run(engine, PROMPTS, PoolingParams(dimensions=8))
    assert np.allclose(cut, [vector[:8] / np.linalg.norm(vector[:8]) for vector in raw], atol=1e-6)


def test_each_prompt_of_a_batch_has_its_own_params(checkpoint):
    engine = load_engine(checkpoint("bert", is_matryoshka=True))
    wishes = [
        PoolingParams(),
        PoolingParams(dimensions=8),
        PoolingParams(use_activation=False),
        PoolingParams(dimensions=8),
    ]
    mixed = engine.forward([as_encoded(engine, ids, wish) for ids, wish in zip(PROMPTS, wishes, strict=True)])
    for output, ids, wish in zip(mixed, PROMPTS, wishes, strict=True):
        assert np.allclose(output.data, run(engine, [ids], wish)[0], atol=1e-6)


def test_the_operators_defaults_hold_unless_a_prompt_says_otherwise(checkpoint):
    folder = checkpoint("bert", is_matryoshka=True)
    plain = load_engine(folder)
    engine = load_engine(folder, pooler=PoolerConfig(dimensions=8, use_activation=False))
    raw = run(plain, PROMPTS, PoolingParams(use_activation=False))
    assert np.allclose(run(engine, PROMPTS), [vector[:8] for vector in raw], atol=1e-6)
    asked = run(engine, PROMPTS, PoolingParams(dimensions=48, use_activation=True))
    assert np.allclose(asked, run(plain, PROMPTS), atol=1e-6)


def test_batching_padded_never_packs(checkpoint):
    engine = load_engine(checkpoint("bert"), batching="padded")
    assert decision(engine, "path") == ("padded", "batching")


def test_a_model_with_an_attention_of_its_own_runs_padded_and_says_why(checkpoint):
    engine = load_engine(checkpoint("deberta"))
    assert decision(engine, "path") == (
        "padded",
        "the self-check: DebertaV2Model has an attention of its own, which cannot be exchanged",
    )


def test_forcing_packed_on_a_model_that_cannot_is_refused(checkpoint):
    folder = checkpoint("deberta")
    with pytest.raises(ModelError) as caught:
        load_engine(folder, batching="packed")
    assert str(caught.value) == (
        f"{folder} cannot run packed: DebertaV2Model has an attention of its own, "
        "which cannot be exchanged. Leave batching at 'auto', or set it to 'padded'."
    )


def test_a_model_whose_attention_gets_more_than_packing_knows_runs_padded(tmp_path):
    """Gemma 2 caps its scores, which the packed attention would leave out."""
    from transformers import Gemma2Config, Gemma2Model

    folder = make_checkpoint(tmp_path / "gemma2", "llama")
    settings = Gemma2Config(
        vocab_size=800, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, intermediate_size=96, max_position_embeddings=512, initializer_range=0.15,
        attn_implementation="eager",
    )  # fmt: skip
    Gemma2Model(settings).save_pretrained(folder)
    engine = load_engine(folder)
    assert decision(engine, "path") == (
        "padded",
        "the self-check: packed attention does not take softcap",
    )


def test_a_model_with_layers_of_another_kind_runs_padded(tmp_path):
    """A chunk can be longer than what the self-check tries."""
    from transformers import Llama4TextConfig, Llama4TextModel

    folder = make_checkpoint(tmp_path / "llama4", "llama")
    settings = Llama4TextConfig(
        vocab_size=800, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, intermediate_size=96, intermediate_size_mlp=96, max_position_embeddings=512,
        num_local_experts=2, layer_types=["chunked_attention", "full_attention"], pad_token_id=0,
    )  # fmt: skip
    Llama4TextModel(settings).save_pretrained(folder)
    assert decision(load_engine(folder), "path") == (
        "padded",
        "the self-check: Llama4TextModel has layers of type chunked_attention",
    )


def test_overrides_reach_the_model_also_where_its_config_class_does_not_know_them(checkpoint):
    one_way = load_engine(checkpoint("qwen3"))
    both_ways = load_engine(checkpoint("qwen3", is_causal=False))
    overridden = load_engine(checkpoint("qwen3"), hf_overrides={"is_causal": False})
    assert_close(run(overridden, PROMPTS), run(both_ways, PROMPTS))
    assert not np.allclose(run(overridden, PROMPTS), run(one_way, PROMPTS), atol=1e-3)


def test_an_id_outside_the_vocabulary_raises_what_the_embedding_raises(checkpoint):
    with pytest.raises(IndexError, match="index out of range in self"):
        run(load_engine(checkpoint("bert")), [[5], [800]])


def test_not_a_number_is_the_servers_fault_and_not_an_answer(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][700] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    engine = load_engine(folder)
    assert np.isfinite(run(engine, [[5, 6]])).all()
    with pytest.raises(EngineError) as caught:
        run(engine, [[5, 6], [700]])
    assert str(caught.value) == (
        f"The model {folder} gave NaN or infinity. That is the server's fault, not the prompt's; dtype float32 may "
        "help."
    )


def test_a_checkpoint_without_all_its_weights_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load_engine(folder)
    assert str(caught.value) == (
        f"The weights in {folder} lack 1 tensors of BertModel, 'encoder.layer.1.output.dense.weight' among them. Fetch "
        "the model again; poolkit does not make up weights."
    )


def test_a_checkpoint_saved_with_a_language_model_head_gives_the_same_vectors(checkpoint):
    plain = load_engine(checkpoint("bert"))
    with_head = load_engine(checkpoint("bert", head="ForMaskedLM"))
    assert len(run(with_head, PROMPTS)) == len(run(plain, PROMPTS))
    assert decision(with_head, "path")[0] == "packed"


def test_a_dense_layer_of_another_shape_than_its_config_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert", dense=20)
    save_file({"linear.weight": torch.zeros(10, 48)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_engine(folder)
    assert str(caught.value) == (
        f"The weights in {folder / '2_Dense'} are {{'linear.weight': (10, 48)}}; its config.json asks for "
        "{'linear.weight': (20, 48), 'linear.bias': (20,)}."
    )


def test_a_dense_layer_saved_as_pytorch_model_bin_is_read(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert", dense=20)
    before = run(load_engine(folder), PROMPTS)
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), folder / "2_Dense" / "pytorch_model.bin")
    weights.unlink()
    assert_close(run(load_engine(folder), PROMPTS), before)


def test_a_task_that_wants_what_the_model_does_not_give_is_refused(checkpoint):
    folder = checkpoint("bert")
    task = PoolingTask(name="tag", api=1, summary="Tag.", output=Output.TOKEN_LOGITS, operations=())
    with pytest.raises(ModelError) as caught:
        load_engine(folder, task=task)
    assert str(caught.value) == (
        f"{folder} gives vector, token_vectors, hidden; task 'tag' asks for token_logits. Choose another task or "
        "another model."
    )


def test_a_device_that_is_not_here_is_refused(checkpoint):
    with pytest.raises(ConfigError) as caught:
        load_engine(checkpoint("bert"), device="toaster")
    assert str(caught.value).startswith("device is 'toaster', which torch cannot use here: Expected one of cpu, cuda")


def test_starting_and_running_leaves_torchs_random_state_alone(checkpoint):
    folder = checkpoint("bert")
    before = torch.get_rng_state()
    run(load_engine(folder), PROMPTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_closed_engine_says_so(checkpoint):
    folder = checkpoint("bert")
    engine = load_engine(folder)
    engine.close()
    with pytest.raises(EngineError) as caught:
        run(engine, PROMPTS)
    assert str(caught.value) == f"The engine of {folder} is closed."


def test_the_report_names_device_dtype_and_path(checkpoint):
    engine = load_engine(checkpoint("bert"), task=EMBED, device="cpu")
    assert [one.name for one in engine.decisions] == ["engine", "device", "dtype", "path"]
    assert decision(engine, "device") == ("cpu", "device")
    assert decision(engine, "dtype") == ("float32", "dtype")


def test_several_threads_may_run_batches_at_once(checkpoint):
    engine = load_engine(checkpoint("bert"))
    batches = [[[5 + number, 9, *range(20, 20 + length)] for length in (3, 40, 7)] for number in range(8)]
    alone = [run(engine, batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: run(engine, batch), batches * 4))
    for vectors, expected in zip(together, alone * 4, strict=True):
        assert_close(vectors, expected)
