"""The engine reads a reranker's answer tokens off a few rows of its head, and says so when it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines import decision, load_engine, make_task, run
from poolkit.contract import Activation, Output, PoolingParams
from poolkit.errors import ModelError
from rerankers import GEMMA, QWEN3, make_reranker

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 9, 11], [7], [5, 9, 11, 400, 12], [8] * 40]
SCORES = make_task(Output.LOGITS, Activation.MODEL)
LOGITS = make_task(Output.LOGITS)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory, checkpoint):
    return make_reranker(tmp_path_factory.mktemp("made"), checkpoint, QWEN3)


def test_only_the_rows_of_the_answer_tokens_are_kept(qwen3):
    engine = load_engine(qwen3, task=LOGITS)
    assert decision(engine, "path")[0] == "packed"
    assert decision(engine, "head") == ("the answer tokens' rows, on the last token", "the answer tokens")
    assert [score.shape for score in run(engine, PROMPTS)] == [(1,)] * len(PROMPTS)


def test_a_score_is_a_sigmoid_unless_a_request_says_otherwise(qwen3):
    engine = load_engine(qwen3, task=SCORES)
    raw = np.stack(run(engine, PROMPTS, PoolingParams(use_activation=False)))
    assert np.allclose(run(engine, PROMPTS), 1 / (1 + np.exp(-raw)), atol=1e-6)
    assert np.abs(raw).max() > 0.1


def test_the_same_model_can_be_served_as_an_embedder(qwen3):
    assert run(load_engine(qwen3), PROMPTS)[0].shape == (48,)


def test_the_last_token_answers_even_where_it_is_padding(qwen3):
    engine = load_engine(qwen3, task=LOGITS)
    ending, without = run(engine, [[5, 9, 0], [5, 9]])
    assert np.abs(ending - without).max() > 0.01


def test_the_answer_tokens_stay_in_float32_where_the_model_does_not(qwen3):
    exact = np.stack(run(load_engine(qwen3, task=LOGITS), PROMPTS))
    half = np.stack(run(load_engine(qwen3, task=LOGITS, dtype="bfloat16"), PROMPTS))
    assert np.abs(half - exact).max() <= 0.1
    assert (half.view(np.uint32) & 0xFFFF != 0).any()  # bfloat16 would leave these bits empty


def test_a_model_that_caps_its_logits_caps_each_of_them(tmp_path):
    """Gemma 2 squashes logits one by one: the difference of two is not the squashed difference."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config

    from checkpoints import FAMILIES

    config = Gemma2Config(
        vocab_size=800, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
        intermediate_size=96, initializer_range=0.15, max_position_embeddings=512, sliding_window=16,
        final_logit_softcapping=0.5, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=FAMILIES["qwen3"].tokenizer(), model_max_length=512).save_pretrained(
        tmp_path
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    overrides = {"classifier_from_token": ["0", "1"]}
    engine = load_engine(tmp_path, task=LOGITS, hf_overrides=overrides)
    no, yes = tokenizer.convert_tokens_to_ids(["0", "1"])
    with torch.inference_mode():
        last = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in PROMPTS])
    expected = (last[:, yes] - last[:, no]).numpy()
    assert float(last.abs().max()) <= 0.5
    assert np.abs(np.concatenate(run(engine, PROMPTS)) - expected).max() <= 1e-5


def test_the_classifier_that_vllm_has_the_config_name_is_run_as_the_causal_lm_that_it_is(qwen3):
    overrides = {"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"]}
    renamed = run(load_engine(qwen3, task=LOGITS, hf_overrides=overrides), PROMPTS)
    np.testing.assert_allclose(renamed, run(load_engine(qwen3, task=LOGITS), PROMPTS), atol=1e-5)


def refusal(folder, **settings):
    with pytest.raises(ModelError) as caught:
        load_engine(folder, task=LOGITS, **settings)
    return str(caught.value)


def test_a_token_that_the_tokenizer_does_not_have_is_refused(qwen3):
    assert refusal(qwen3, hf_overrides={"classifier_from_token": ["nope", "yes"]}) == (
        f"{qwen3} answers with the token 'nope', but its tokenizer has none of that name. Check classifier_from_token, "
        "or fetch the model again."
    )


def test_a_token_outside_the_vocabulary_is_refused(tmp_path, checkpoint):
    folder = make_reranker(tmp_path, checkpoint, GEMMA, vocab_size=800)
    assert refusal(folder) == (f"{folder} answers with token 802; its ids go from 0 to 799. Fetch the model again.")
