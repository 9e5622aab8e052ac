"""Classifiers give transformers' logits: every family, packed and padded, for texts and for pairs."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
import transformers

from checkpoints import real_texts
from engines import decision, encode_prompts, load_encoder, load_engine, make_task
from poolkit.contract import Output, PoolingParams, TextPair

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-4
"""The promise of fidelity.md; sums in another order differ by 5e-6 at most here."""

LOGITS = make_task(Output.LOGITS)
TOKEN_LOGITS = make_task(Output.TOKEN_LOGITS)
LENGTH = 200
FAMILIES = [
    "bert",
    "roberta",
    "xlm_roberta",
    "distilbert",
    "mpnet",
    "modernbert",
    "deberta",
    "nomic_bert",
    "gte",
    "qwen2",
    "qwen3",
    "llama",
    "gemma",
]
DECODERS = ("qwen2", "qwen3", "llama", "gemma")


def prompts_of(kind):
    texts = [text for text in real_texts(81) if text]
    if kind == "texts":
        return texts
    return [TextPair(first, second) for first, second in zip(texts[::2], texts[1::2], strict=True)]


def run(engine, folder, prompts, *, size=200):
    params = [PoolingParams(truncate_prompt_tokens=LENGTH)] * len(prompts)
    encoded = encode_prompts(load_encoder(folder), prompts, params, first_index=0)
    return [
        output.data
        for start in range(0, len(encoded), size)
        for output in engine.forward(encoded[start : start + size])
    ]


def expect(folder, head, prompts):
    """The plain model's answer to each prompt alone."""
    model = getattr(transformers, f"AutoModel{head}").from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    taken = inspect.signature(model.forward).parameters
    answers = []
    for prompt in prompts:
        texts = (prompt.first, prompt.second) if isinstance(prompt, TextPair) else (prompt,)
        features = tokenizer(*texts, truncation=True, max_length=LENGTH, return_tensors="pt")
        with torch.inference_mode():
            output = model(**{name: value for name, value in features.items() if name in taken})
        answers.append(output.logits[0].numpy())
    return answers


def difference(actual, expected):
    assert [array.shape for array in actual] == [array.shape for array in expected]
    return max(float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True))


@pytest.mark.parametrize("kind", ["texts", "pairs"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_sequence_classifier_gives_the_logits_of_transformers(checkpoint, family, kind):
    head = "ForSequenceClassification"
    folder = checkpoint(family, head=head, sentence_transformers=False, num_labels=3)
    engine = load_engine(folder, task=LOGITS)
    assert decision(engine, "path")[0] == ("padded" if family == "deberta" else "packed")
    reads = "last" if family in DECODERS else "first"
    assert decision(engine, "head")[0] == f"the model's own, on the {reads} token"
    prompts = prompts_of(kind)
    expected = expect(folder, head, prompts)
    assert difference(run(engine, folder, prompts), expected) <= TOLERANCE
    assert difference(run(engine, folder, prompts, size=7), expected) <= TOLERANCE
    padded = load_engine(folder, task=LOGITS, batching="padded", max_num_batched_tokens=2048)
    assert difference(run(padded, folder, prompts), expected) <= TOLERANCE


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta", "qwen3"])
def test_each_token_classifier_gives_the_logits_of_transformers(checkpoint, family):
    head = "ForTokenClassification"
    folder = checkpoint(family, head=head, sentence_transformers=False, num_labels=5)
    prompts = prompts_of("texts")
    expected = expect(folder, head, prompts)
    for batching in ("auto", "padded"):
        engine = load_engine(folder, task=TOKEN_LOGITS, batching=batching)
        assert decision(engine, "head")[0] == "the model's own, on every token"
        assert difference(run(engine, folder, prompts), expected) <= TOLERANCE


def test_token_types_tell_the_texts_of_a_pair_apart(checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    pairs = [TextPair("one two", "three four")]
    [encoded] = encode_prompts(load_encoder(folder), pairs, [PoolingParams()], first_index=0)
    assert encoded.token_type_ids is not None
    for batching in ("packed", "padded"):
        engine = load_engine(folder, task=LOGITS, batching=batching)
        with_types = run(engine, folder, pairs)
        without = run(engine, folder, [encoded.token_ids])
        assert difference(with_types, without) > 0.01
        together = run(engine, folder, [*pairs, encoded.token_ids, *pairs])
        assert difference(together, [*with_types, *without, *with_types]) <= 1e-6


def test_a_classifier_that_reads_the_mean_is_read_so(checkpoint):
    head = "ForSequenceClassification"
    folder = checkpoint("modernbert", head=head, sentence_transformers=False, num_labels=3, classifier_pooling="mean")
    engine = load_engine(folder, task=LOGITS)
    assert decision(engine, "head")[0] == "the model's own, on the mean of the tokens"
    prompts = prompts_of("texts")
    assert difference(run(engine, folder, prompts), expect(folder, head, prompts)) <= TOLERANCE


@pytest.mark.parametrize("ids", [[5, 9, 11, 0, 0], [0, 0], [7, 0, 8], [0]])
def test_a_decoder_reads_the_last_token_that_is_no_padding(checkpoint, ids):
    folder = checkpoint("qwen3", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    together = run(load_engine(folder, task=LOGITS), folder, [[5, 9, 11], ids, [8, 7, 6, 5, 4, 3]])
    assert np.abs(together[1] - expected).max() <= TOLERANCE


def test_a_decoder_without_a_padding_token_reads_the_last(checkpoint):
    head = "ForSequenceClassification"
    folder = checkpoint("llama", head=head, sentence_transformers=False, num_labels=3, pad_token_id=None)
    engine = load_engine(folder, task=LOGITS)
    assert decision(engine, "path")[0] == "packed"
    prompts = prompts_of("texts")[:20]
    assert difference(run(engine, folder, prompts), expect(folder, head, prompts)) <= TOLERANCE


def test_a_head_that_reads_something_else_leaves_the_model_whole(tmp_path, checkpoint):
    """ALBERT's base pools with a bare linear layer, whose activation stands elsewhere."""
    from transformers import AlbertConfig, AlbertForSequenceClassification, AutoTokenizer

    settings = AlbertConfig(
        vocab_size=800, embedding_size=16, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, initializer_range=0.15, pad_token_id=0, num_labels=3,
    )  # fmt: skip
    AlbertForSequenceClassification(settings).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint("bert")).save_pretrained(tmp_path)
    engine = load_engine(tmp_path, task=LOGITS)
    path, source = decision(engine, "path")
    assert path == "padded"
    assert source.startswith("the self-check: the head alone ")
    assert decision(engine, "head") == ("the whole model", "path")
    prompts = prompts_of("pairs")
    expected = expect(tmp_path, "ForSequenceClassification", prompts)
    assert difference(run(engine, tmp_path, prompts), expected) <= TOLERANCE


@pytest.mark.parametrize("labels", [1, 3])
def test_scores_of_pairs_are_those_of_a_cross_encoder(checkpoint, labels):
    from sentence_transformers import CrossEncoder

    from poolkit.contract import Activation

    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=labels)
    pairs = prompts_of("pairs")
    scores = run(load_engine(folder, task=make_task(Output.LOGITS, Activation.MODEL)), folder, pairs)
    reference = CrossEncoder(str(folder), device="cpu", max_length=LENGTH)
    expected = reference.predict([(pair.first, pair.second) for pair in pairs], apply_softmax=labels > 1)
    assert np.abs(np.stack(scores).squeeze() - expected).max() <= 1e-5


def test_a_classifier_in_bfloat16_keeps_its_head_in_float32(checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    prompts = prompts_of("texts")
    exact = run(load_engine(folder, task=LOGITS), folder, prompts)
    half = load_engine(folder, task=LOGITS, dtype="bfloat16")
    assert decision(half, "path")[0] == "packed"
    logits = np.stack(run(half, folder, prompts))
    assert np.abs(logits - np.stack(exact)).max() <= 0.05
    assert (logits.view(np.uint32) & 0xFFFF != 0).any()  # bfloat16 would leave these bits empty
