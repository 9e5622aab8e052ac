"""The engine `cpu`: each family gives what transformers gives, and a text the same bits in every batch."""

from __future__ import annotations

import gc
import json
import random
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers

from checkpoints import WIDTHS_FOR_KERNELS as FAMILIES
from checkpoints import real_texts, write_json
from closeness import assert_close
from poolkit import LLM, Batch, ResolvedParams, Segments
from poolkit.errors import ConfigError, ModelError
from poolkit_plugins.cpu import decide, load_backbone, suits
from reading import read

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:300] for text in real_texts(50)[1:]]
TOLERANCE = 1e-5
"""The promise of fidelity.md; sums in another order differ by 1e-6 at most here."""

BRANCHING = """
from transformers import BertModel

class BranchingModel(BertModel):
    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        output = super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        if input_ids.shape[1] > 31:
            output.last_hidden_state = output.last_hidden_state * 2
        return output
"""
"""A BERT by its name and its weights alone."""


def kernels_or_reason():
    try:
        from poolkit_cpu_kernels import load
    except ModuleNotFoundError:
        return "poolkit-cpu-kernels is not installed"
    return load()


KERNELS = kernels_or_reason()
needs_kernels = pytest.mark.skipif(isinstance(KERNELS, str), reason=f"no library of kernels runs here: {KERNELS}")
needs_bfloat16 = pytest.mark.skipif(
    "bfloat16" not in getattr(KERNELS, "dtypes", ()), reason="no library of kernels here computes in bfloat16"
)
needs_int8 = pytest.mark.skipif(
    "int8" not in getattr(KERNELS, "dtypes", ()), reason="no library of kernels here computes in int8"
)


@pytest.fixture
def small(checkpoint):
    """Return a function that makes a checkpoint of a family with widths that the kernels take."""

    def make(family, **settings):
        return checkpoint(family, **{**FAMILIES[family], **settings})

    return make


def serve(folder, **settings):
    return LLM(str(folder), **{"engine": "cpu", "dtype": "float32", **settings})


def embed(llm, texts=TEXTS):
    return [output.outputs.embedding for output in llm.embed(texts, use_tqdm=False)]


def encode(llm, texts=TEXTS):
    return [output.outputs.data for output in llm.encode(texts, use_tqdm=False)]


def classify(llm, texts=TEXTS):
    return [np.array(output.outputs.probs) for output in llm.classify(texts, use_tqdm=False)]


def score(llm, texts=TEXTS):
    return [np.array(output.outputs.score) for output in llm.score("what is a cat", texts, use_tqdm=False)]


def report(llm):
    return {line.name: (line.value, line.source) for line in llm.decisions}


def make_batch(prompts, **arrays):
    segments = Segments.of([len(ids) for ids in prompts])
    is_query = np.zeros(len(prompts), np.bool_)
    params = [ResolvedParams()] * len(prompts)
    return Batch(np.concatenate(prompts).astype(np.int32), segments.cu_seqlens, is_query, params, **arrays)


def load(folder, **settings):
    return load_backbone(read(folder, **{"engine": "cpu", "dtype": "float32", **settings}))


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_gives_what_transformers_gives(small, family):
    folder = small(family)
    with serve(folder, engine="torch", batching="padded") as plain, serve(folder) as native:
        np.testing.assert_allclose(embed(native), embed(plain), atol=TOLERANCE)


@needs_bfloat16
@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_vectors_point_where_those_in_float32_do(small, family):
    folder = small(family)
    with serve(folder) as exact, serve(folder, dtype="bfloat16") as rounded:
        cosines = (np.array(embed(exact)) * embed(rounded)).sum(axis=1)
        assert report(rounded)["dtype"] == ("bfloat16", "dtype")
    assert cosines.min() > 0.998
    assert cosines.min() < 1 - 1e-6  # it is not float32 under another name


@needs_kernels
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen3_sliding", {"is_causal": False}),
        ("llama", {"is_causal": False}),
        ("gemma3", {"use_bidirectional_attention": True}),
    ],
)
def test_decoders_that_see_all_tokens_are_run_so(small, family, settings):
    folder = small(family, **settings)
    with (
        serve(folder, engine="torch", batching="padded") as plain,
        serve(folder) as native,
        serve(small(family)) as causal,
    ):
        found = embed(native)
        np.testing.assert_allclose(found, embed(plain), atol=TOLERANCE)
        assert np.abs(np.array(found) - embed(causal)).max() > 1e-2


@needs_kernels
def test_a_checkpoint_in_bfloat16_keeps_its_tables_so(small, tmp_path):
    exact = small("bert")
    folder = tmp_path / "halves"
    shutil.copytree(exact, folder)
    transformers.AutoModel.from_pretrained(exact, dtype=torch.bfloat16).save_pretrained(folder)
    with serve(folder, engine="torch", batching="padded") as plain, serve(folder) as native:
        np.testing.assert_allclose(embed(native), embed(plain), atol=TOLERANCE)
    assert load(folder)._encoder._tables["words"].dtype == np.uint16
    assert load(exact)._encoder._tables["words"].dtype == np.float32


@needs_kernels
@pytest.mark.parametrize(
    ("ask", "family", "head", "settings"),
    [
        *((embed, "bert", "", {"pooling": [mode]}) for mode in ("mean", "cls", "lasttoken", "max", "weightedmean")),
        (embed, "bert", "", {"dense": 96}),
        (embed, "qwen3", "", {}),
        (embed, "mpnet", "", {}),
        (encode, "modernbert", "", {}),
        (score, "bert", "ForSequenceClassification", {"num_labels": 1}),
        (score, "roberta", "ForSequenceClassification", {"num_labels": 1}),
        (classify, "modernbert", "ForSequenceClassification", {"num_labels": 3}),
        (classify, "distilbert", "ForSequenceClassification", {"num_labels": 5}),
        (classify, "qwen3", "ForSequenceClassification", {"num_labels": 3}),
        (encode, "bert", "ForTokenClassification", {"num_labels": 3}),
    ],
)
def test_a_text_gets_the_same_bits_in_every_batch(small, ask, family, head, settings):
    if head:
        settings = {**settings, "head": head, "sentence_transformers": False}
    folder = small(family, **settings)
    task = {"task": "token_embed"} if ask is encode and not head else {}
    dice = random.Random(0)
    with serve(folder, dtype="auto", **task) as llm:
        alone = [ask(llm, [text])[0] for text in TEXTS]
        for size in (2, 3, 7, 31, len(TEXTS), len(TEXTS)):
            chosen = [dice.randrange(len(TEXTS)) for _ in range(size)]
            for place, found in zip(chosen, ask(llm, [TEXTS[place] for place in chosen]), strict=True):
                np.testing.assert_array_equal(found, alone[place])


@needs_kernels
def test_a_text_gets_the_same_bits_with_any_number_of_threads(small):
    backbone = load(small("modernbert"))
    dice = np.random.default_rng(0)
    batch = make_batch([dice.integers(5, 700, size) for size in (3, 9, 64, 200, 250)])
    try:
        found = []
        for threads in (1, 2, 3):
            KERNELS.set_threads(threads)
            found.append(backbone(batch).tokens.copy())
    finally:
        KERNELS.set_threads(1)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@needs_kernels
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
@pytest.mark.parametrize(("ask", "head"), [(classify, "ForSequenceClassification"), (encode, "ForTokenClassification")])
def test_a_classifier_keeps_its_own_head(small, family, ask, head):
    folder = small(family, head=head, sentence_transformers=False, num_labels=3)
    with serve(folder, engine="torch", batching="padded") as plain, serve(folder) as native:
        assert report(native)["engine"] == ("cpu", "engine")
        assert report(native)["head"] == report(plain)["head"]
        for found, expected in zip(ask(native), ask(plain), strict=True):
            np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@needs_kernels
def test_pairs_are_told_apart_by_token_types(small):
    folder = small("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with serve(folder) as llm, torch.inference_mode():
        for document, output in zip(TEXTS[2:9], llm.score(TEXTS[1], TEXTS[2:9], use_tqdm=False), strict=True):
            expected = model(**tokenizer(TEXTS[1], document, return_tensors="pt")).logits[0, 0].sigmoid()
            assert output.outputs.score == pytest.approx(float(expected), abs=TOLERANCE)


@needs_kernels
def test_a_padding_token_inside_a_text_is_left_out_of_the_positions(small):
    folder, texts = small("roberta"), ["a cat <pad> sat on the mat", "short", "<pad><pad> rivers and <pad> salt"]
    with serve(folder, engine="torch", batching="padded") as plain, serve(folder) as native:
        np.testing.assert_allclose(embed(native, texts), embed(plain, texts), atol=TOLERANCE)


@needs_kernels
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_tokens_beyond_the_attended_ones_are_not_seen(small, family):
    backbone = load(small(family))
    ids = np.arange(5, 21)
    expanded = make_batch([ids], attention_lengths=np.array([6], np.int32))
    assert_close(backbone(expanded).tokens[:6], backbone(make_batch([ids[:6]])).tokens)


@needs_kernels
def test_auto_takes_it_and_the_report_says_which_library_runs_what(small):
    with LLM(str(small("bert"))) as llm:
        found = report(llm)
    assert found["engine"] == ("cpu", "auto")
    assert found["library"][0].startswith(f"{KERNELS.name} of poolkit-cpu-kernels ")
    assert found["device"] == ("cpu", "the engine cpu")
    if "bfloat16" in KERNELS.dtypes:
        assert found["dtype"] == ("bfloat16", f"auto: {KERNELS.name} runs it fast")
    else:
        assert found["dtype"] == ("float32", f"auto: {KERNELS.name} has no fast bfloat16")
    agrees = "the self-check: it agrees with transformers in float32"
    assert found["path"] == ("native: packed, without padding", agrees)


@needs_kernels
def test_what_is_decided_is_known_before_the_weights_are_read(small):
    folder = small("bert")
    with serve(folder) as llm:
        decided = decide(read(folder, engine="cpu", dtype="float32"))
        assert set(decided) <= set(llm.decisions)
        assert [line.name for line in decided] == ["library", "device", "dtype"]


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("deberta", {}, "its table has no models of type 'deberta-v2'"),
        ("wide", {}, "it takes widths that are multiples of 32, and the model's hidden_size is 48"),
        ("bert", {"device": "cuda"}, "it runs on the CPU, and device is 'cuda'"),
        ("bert", {"batching": "padded"}, "it pads nothing, and batching is 'padded'"),
        ("bert", {"dtype": "float16"}, "it does not compute in float16"),
    ],
)
def test_what_it_cannot_run_is_told_before_any_weight_is_read(small, checkpoint, family, settings, reason):
    folder = checkpoint("bert") if family == "wide" else checkpoint(family) if family == "deberta" else small(family)
    info = read(folder, **{"dtype": "float32", **settings})
    assert suits(info) == reason
    assert load_backbone(info) == reason


@needs_kernels
@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("gemma2", {"attn_logit_softcapping": 50.0}, "its table has no softcapping of attention"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "its table has no rope of type 'dynamic'",
        ),
        ("bert", {"hidden_act": "quick_gelu"}, "its table has no activation 'quick_gelu'"),
        (
            "bert",
            {"num_attention_heads": 4},
            "it takes widths that are multiples of 32, and the model's head_dim is 16",
        ),
    ],
)
def test_what_it_cannot_run_is_a_reason_and_torch_runs_it(small, family, settings, reason):
    folder = small(family, **settings)
    assert load(folder) == reason
    with LLM(str(folder), dtype="float32") as llm:
        assert report(llm)["engine"] == ("torch", f"auto: cpu: {reason}")
    with pytest.raises(ModelError) as caught:
        serve(folder)
    assert str(caught.value) == f"The engine 'cpu' cannot run {folder}: {reason}. Choose another engine."


@needs_kernels
def test_a_task_that_taps_layers_is_left_to_another_engine(small):
    info = read(small("bert"), engine="cpu", dtype="float32")
    reason = "it gives the last layer's hidden states alone, and the task taps others"
    assert load_backbone(info, taps=(1,)) == reason


@needs_kernels
def test_a_model_that_is_another_than_its_name_says_fails_the_self_check(small, tmp_path):
    folder = tmp_path / "branching"
    shutil.copytree(small("bert"), folder)
    (folder / "modeling_branching.py").write_text(BRANCHING, "utf-8")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {**config, "auto_map": {"AutoModel": "modeling_branching.BranchingModel"}})
    with LLM(str(folder), dtype="float32", trust_remote_code=True) as llm:
        assert report(llm)["engine"] == (
            "torch",
            "auto: cpu: the self-check: the kernels differ from transformers by 5.0e-01 of a token vector's length, "
            "more than 1e-04",
        )


@needs_kernels
@pytest.mark.parametrize("head", ["", "ForSequenceClassification"])
def test_the_weights_of_torch_are_dropped(small, head):
    def count():
        gc.collect()
        return sum(type(found) is torch.nn.Linear for found in gc.get_objects())

    folder, before = small("bert", **({"head": head, "sentence_transformers": False} if head else {})), count()
    with serve(folder) as llm:
        assert report(llm)["engine"][0] == "cpu"
        assert count() - before == (2 if head else 0)  # BERT's pooler and the classifier, which are the head


@needs_kernels
def test_a_closed_engine_runs_nothing_more_and_has_no_weights(small):
    backbone = load(small("bert"))
    backbone(make_batch([np.arange(5, 15)]))
    backbone.close()
    with pytest.raises(ValueError, match="closed"):
        backbone(make_batch([np.arange(5, 15)]))


@needs_kernels
def test_the_environment_chooses_a_lower_library(small, monkeypatch):
    monkeypatch.setenv("POOLKIT_CPU_KERNELS", "avx2")
    with LLM(str(small("bert"))) as llm:
        found = report(llm)
    assert found["library"][0].startswith("avx2 of poolkit-cpu-kernels ")
    assert found["library"][1] == "POOLKIT_CPU_KERNELS"
    assert found["dtype"] == ("float32", "auto: avx2 has no fast bfloat16")


@needs_kernels
def test_the_environment_turns_it_off(small, monkeypatch):
    monkeypatch.setenv("POOLKIT_CPU_KERNELS", "off")
    folder = small("bert")
    with LLM(str(folder)) as llm:
        assert report(llm)["engine"] == ("torch", "auto: cpu: POOLKIT_CPU_KERNELS is 'off'")
    with pytest.raises(ConfigError) as caught:
        serve(folder)
    assert str(caught.value) == "The engine 'cpu' cannot run here: POOLKIT_CPU_KERNELS is 'off'."


@needs_kernels
def test_a_library_that_there_is_not_is_told(small, monkeypatch):
    monkeypatch.setenv("POOLKIT_CPU_KERNELS", "avx3")
    with pytest.raises(ConfigError, match="POOLKIT_CPU_KERNELS is 'avx3', expected one of"):
        LLM(str(small("bert")))


def test_without_the_package_auto_takes_torch_and_the_message_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "poolkit_cpu_kernels", None)
    folder = small("bert")
    with LLM(str(folder), dtype="float32") as llm:
        assert report(llm)["engine"] == ("torch", "auto: cpu: poolkit-cpu-kernels is not installed")
    with pytest.raises(ConfigError) as caught:
        serve(folder)
    assert str(caught.value) == (
        "The engine 'cpu' cannot run here: poolkit-cpu-kernels is not installed. Run: python -m pip install "
        "'poolkit[cpu]', or in a checkout of poolkit python -m pip install ./contrib/poolkit-cpu-kernels, which takes "
        "a C++ compiler."
    )


@needs_int8
def test_the_loss_of_int8_is_measured_and_told(small):
    folder = small("bert")
    with serve(folder) as exact, serve(folder, dtype="int8") as rounded:
        found = report(rounded)
        cosines = (np.array(embed(exact)) * embed(rounded)).sum(axis=1)
    assert found["dtype"] == ("int8", "dtype")
    value, source = found["int8 loss"]
    prompts, worst, tokens, _ = (float(word.strip("(),")) for word in value.split() if "0." in word)
    assert (
        value == f"cosine with float32: prompts {prompts:.4f} (worst {worst:.4f}), tokens {value.split('tokens ')[1]}"
    )
    assert source == "the self-check's random prompts"
    assert 0.9 < worst <= prompts < 1
    assert 0.9 < tokens < 1
    assert 0.98 < cosines.min() < 1 - 1e-6


def test_engines_without_int8_refuse_it(small):
    folder = small("bert")
    for engine, reason in {
        "torch": "it does not compute in int8; set dtype to auto, float32 or bfloat16",
        "openvino": "it does not compute in int8",
    }.items():
        with pytest.raises(ModelError) as caught:
            LLM(str(folder), engine=engine, dtype="int8")
        assert str(caught.value) == f"The engine {engine!r} cannot run {folder}: {reason}. Choose another engine."
