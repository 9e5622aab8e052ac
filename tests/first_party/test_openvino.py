"""The engine `openvino`: encoders answer what sentence-transformers answers, offline and over HTTP, from any thread."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from checkpoints import real_texts, write_json
from closeness import assert_close
from poolkit import LLM, Batch, ResolvedParams, Segments, create_app
from poolkit.errors import ConfigError, ModelError
from poolkit_plugins.openvino import load_backbone
from reading import read
from serving import ask

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:400] for text in real_texts(60)[1:]]
TOLERANCE = 1e-5
"""The promise of fidelity.md; sums in another order differ by 1e-6 at most here."""
ENCODERS = [
    "bert",
    "roberta",
    "xlm_roberta",
    "mpnet",
    "distilbert",
    "modernbert",
    "deberta",
    "nomic_bert",
    "gte",
    "jina_v3",
]
OPENVINO = {"engine": "openvino", "dtype": "float32"}

BRANCHING = """
from transformers import BertModel

class BranchingModel(BertModel):
    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        output = super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        if input_ids.shape[1] > 5:
            output.last_hidden_state = output.last_hidden_state * 2
        return output
"""
"""A trace of it follows one of the branches for rows of any length."""

CANCELLING = """
import torch
from transformers import BertModel

class CancellingModel(BertModel):
    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        output = super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        output.last_hidden_state = (output.last_hidden_state + 100) @ torch.eye(self.config.hidden_size) - 100
        return output
"""
"""bfloat16 has steps of 0.5 at 100."""


@pytest.fixture(scope="module")
def bert(checkpoint):
    """A tiny BERT for `embed`, loaded once."""
    with LLM(str(checkpoint("bert")), max_num_batched_tokens=512, **OPENVINO) as llm:
        yield llm


def embed(llm, texts=TEXTS):
    return np.stack([output.outputs.embedding for output in llm.embed(texts, use_tqdm=False)])


def load(folder, dtype="float32"):
    return load_backbone(read(folder, dtype=dtype))


def add_code(folder, name, code):
    """Let the checkpoint run the class `{name}Model`, which `code` defines."""
    (folder / f"modeling_{name.lower()}.py").write_text(code, "utf-8")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    auto_map = {"AutoModel": f"modeling_{name.lower()}.{name}Model"}
    write_json(folder / "config.json", {**config, "auto_map": auto_map})


@contextmanager
def memory_limited_to(more):
    """Let the process have so many bytes of address space more than it has now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def make_batch(prompts):
    segments = Segments.of([len(ids) for ids in prompts])
    token_ids = np.concatenate(prompts).astype(np.int32)
    params = [ResolvedParams()] * len(prompts)
    return Batch(token_ids, segments.cu_seqlens, np.zeros(len(prompts), np.bool_), params)


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_answer_as_sentence_transformers_does(checkpoint, family):
    folder = checkpoint(family)
    reference = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    with LLM(str(folder), max_num_batched_tokens=512, **OPENVINO) as llm:
        np.testing.assert_allclose(embed(llm), reference, atol=TOLERANCE)
        np.testing.assert_allclose(embed(llm, TEXTS[:1]), reference[:1], atol=TOLERANCE)


def test_a_padding_token_inside_a_text_is_left_out_of_the_positions(checkpoint):
    folder, texts = checkpoint("roberta"), ["a cat <pad> sat on the mat", "short", "<pad><pad> rivers and <pad> salt"]
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts)
    with LLM(str(folder), **OPENVINO) as llm:
        np.testing.assert_allclose(embed(llm, texts), reference, atol=TOLERANCE)


def test_the_start_up_report_says_what_runs_where(bert):
    found = {line.name: (line.value, line.source) for line in bert.decisions}
    assert found["engine"] == ("openvino", "engine")
    assert found["library"][0].startswith("openvino 20")
    assert found["device"] == ("cpu", "the engine openvino")
    assert found["dtype"] == ("float32", "dtype")
    assert found["path"] == ("padded", "the self-check: converted it agrees with transformers")


def test_requests_over_http_are_served_by_it(bert):
    answered = ask(create_app(bert), "POST", "/v1/embeddings", json={"input": TEXTS[:5]})
    assert answered.status_code == 200
    assert_close([row["embedding"] for row in answered.json()["data"]], embed(bert, TEXTS[:5]))


def test_pairs_are_told_apart_by_token_types_and_a_classifier_keeps_its_own_head(checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with LLM(str(folder), **OPENVINO) as llm, torch.inference_mode():
        assert "openvino" in next(line.value for line in llm.decisions if line.name == "engine")
        for document, output in zip(TEXTS[2:9], llm.score(TEXTS[1], TEXTS[2:9], use_tqdm=False), strict=True):
            expected = model(**tokenizer(TEXTS[1], document, return_tensors="pt")).logits[0, 0].sigmoid()
            assert output.outputs.score == pytest.approx(float(expected), abs=TOLERANCE)


def test_token_vectors_are_those_of_the_torch_engine(checkpoint):
    folder = str(checkpoint("bert"))
    with LLM(folder, task="token_embed", **OPENVINO) as llm, LLM(folder, task="token_embed", dtype="float32") as plain:
        pairs = zip(llm.encode(TEXTS, use_tqdm=False), plain.encode(TEXTS, use_tqdm=False), strict=True)
        for ours, theirs in pairs:
            assert_close(ours.outputs.data, theirs.outputs.data)


def test_threads_run_it_at_once_without_disturbing_each_other(checkpoint):
    folder = checkpoint("bert")
    backbone = load(folder)
    dice = np.random.default_rng(0)
    batches = [make_batch([dice.integers(5, 700, size) for size in sizes]) for sizes in ((3, 9, 17), (5, 5, 40, 80))]
    alone = [backbone(batch).tokens for batch in batches]

    def run_often(batch):
        return [backbone(batch).tokens for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        for expected, found in zip(alone, pool.map(run_often, batches), strict=True):
            for states in found:
                assert_close(states, expected)


def test_tokens_beyond_the_attended_ones_are_not_seen(checkpoint):
    folder = checkpoint("bert")
    backbone = load(folder)
    ids = np.arange(5, 15)
    plain = make_batch([ids[:6]])
    expanded = make_batch([ids])
    expanded = Batch(
        expanded.token_ids, expanded.cu_seqlens, expanded.is_query, expanded.params, attention_lengths=np.array([6])
    )
    assert_close(backbone(expanded).tokens[:6], backbone(plain).tokens)


def test_padding_past_a_window_of_attention_does_not_disturb_a_text(checkpoint):
    backbone = load(checkpoint("modernbert"))
    ids = np.random.default_rng(0).integers(5, 700, 200)
    together = backbone(make_batch([ids[:3], ids])).tokens
    assert_close(together[:3], backbone(make_batch([ids[:3]])).tokens)
    assert_close(together[3:], backbone(make_batch([ids])).tokens)


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited as Linux does it")
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_batch_that_does_not_fit_is_a_memory_error_and_the_next_one_runs(checkpoint, family):
    folder = checkpoint(family)
    backbone = load_backbone(read(folder, dtype="float32", max_num_batched_tokens=250_000))
    small, large = make_batch([np.arange(5, 15)] * 2), make_batch([np.arange(5, 505)] * 500)
    expected = backbone(small).tokens
    # The limit holds in the middle of a pass: each of its tensors has 48 MB, and further ones have more.
    with memory_limited_to(100_000_000), pytest.raises(MemoryError, match=r"Failed to allocate \d+ bytes of memory"):
        backbone(large)
    assert_close(backbone(small).tokens, expected)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_bfloat16_is_computed_in_where_asked_for_and_where_it_is_not_possible_that_is_the_reason(checkpoint, family):
    folder = checkpoint(family)
    backbone = load(folder, "bfloat16")
    if isinstance(backbone, str):
        refused = "OpenVINO does not compute in bfloat16 on this CPU"
        assert backbone == refused or backbone.startswith("OpenVINO cannot compile it in bfloat16: ")
        return
    [dtype] = [line for line in backbone.decisions if line.name == "dtype"]
    assert dtype.value == "bfloat16"
    assert dtype.source in ("dtype", "dtype; OpenVINO emulates it, as this CPU does not run it fast")
    with LLM(str(folder), **OPENVINO) as exact, LLM(str(folder), **{**OPENVINO, "dtype": "bfloat16"}) as rounded:
        expected, found = embed(exact), embed(rounded)
    assert (expected * found).sum(axis=1).min() >= 0.999
    assert np.abs(expected - found).max() > 1e-4  # it is not float32 under another name


def test_with_auto_the_start_up_report_says_which_dtype_is_computed_in_and_why(checkpoint):
    folder = str(checkpoint("bert"))
    with LLM(folder, engine="openvino") as llm:
        [dtype] = [line for line in llm.decisions if line.name == "dtype"]
        with LLM(folder, engine="openvino", dtype=dtype.value) as explicit:
            assert_close(embed(llm), embed(explicit))
    if dtype.value == "bfloat16":
        assert dtype.source == "auto: this CPU runs bfloat16 fast"
    else:
        broken = dtype.source.startswith("auto: bfloat16 does not work: OpenVINO cannot compile it in bfloat16: ")
        assert broken or dtype.source == "auto: this CPU does not run bfloat16 fast"


def test_with_auto_a_model_that_bfloat16_is_too_coarse_for_runs_in_float32(checkpoint, tmp_path):
    folder = tmp_path / "cancelling"
    shutil.copytree(checkpoint("bert"), folder)
    add_code(folder, "Cancelling", CANCELLING)
    with LLM(str(folder), engine="openvino", trust_remote_code=True) as llm:
        [dtype] = [line for line in llm.decisions if line.name == "dtype"]
    assert dtype.value == "float32"
    assert dtype.source == "auto: this CPU does not run bfloat16 fast" or re.fullmatch(
        r"auto: bfloat16 does not work: (OpenVINO cannot compile it in bfloat16: .*|converted it differs from "
        r"transformers by [0-9.e-]+ of a token vector's length, more than 6e-02)",
        dtype.source,
    )


def test_a_dtype_in_whose_place_openvino_would_take_another_is_refused(checkpoint):
    backbone = load(checkpoint("bert"), "float16")
    if isinstance(backbone, str):
        refused = "OpenVINO does not compute in float16 on this CPU"
        assert backbone == refused or backbone.startswith("OpenVINO cannot compile it in float16: ")
    else:
        assert [line.value for line in backbone.decisions if line.name == "dtype"] == ["float16"]


def test_an_expansion_past_a_window_of_attention_is_what_transformers_gives(checkpoint):
    folder = checkpoint("modernbert")
    ids = np.random.default_rng(0).integers(5, 700, 100)
    attended = np.array([4], np.int32)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        mask = torch.arange(100)[None] < 4
        expected = model(torch.from_numpy(ids)[None], attention_mask=mask.long()).last_hidden_state[0].numpy()
    plain = make_batch([ids])
    expanded = Batch(plain.token_ids, plain.cu_seqlens, plain.is_query, plain.params, attention_lengths=attended)
    assert_close(load(folder)(expanded).tokens, expected)


def test_the_weights_of_torch_are_dropped_after_conversion(checkpoint):
    def count():
        gc.collect()
        return sum(type(found).__name__ == "BertModel" for found in gc.get_objects())

    folder, before = checkpoint("bert"), count()
    backbone = load(folder)
    assert not isinstance(backbone, str)
    assert count() == before


@pytest.mark.parametrize(
    ("settings", "taps", "reason"),
    [
        ({}, (1,), "it gives the last layer's hidden states alone, and the task taps others"),
        ({"device": "cuda"}, (), "it runs on the CPU, and device is 'cuda'"),
        ({"batching": "packed"}, (), "it pads rows, and batching is 'packed'"),
    ],
)
def test_what_it_cannot_do_is_a_reason(checkpoint, settings, taps, reason):
    folder = checkpoint("bert")
    assert load_backbone(read(folder, **settings), taps=taps) == reason


def test_decoders_are_refused(checkpoint):
    folder: Path = checkpoint("qwen3")
    with pytest.raises(ModelError) as caught:
        LLM(str(folder), **OPENVINO)
    assert str(caught.value) == (
        f"The engine 'openvino' cannot run {folder}: it runs encoders, and the model is a decoder. "
        "Choose another engine."
    )


def test_a_model_that_gives_other_numbers_once_converted_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "branching"
    shutil.copytree(checkpoint("bert"), folder)
    add_code(folder, "Branching", BRANCHING)
    assert load_backbone(read(folder, dtype="float32", trust_remote_code=True)) == (
        "converted it differs from transformers by 5.0e-01 of a token vector's length, more than 1e-04"
    )


def test_without_openvino_the_message_says_what_to_install(checkpoint, monkeypatch):
    monkeypatch.delitem(sys.modules, "poolkit_plugins.openvino._convert", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError) as caught:
        LLM(str(checkpoint("bert")), **OPENVINO)
    assert str(caught.value) == (
        "The engine 'openvino' needs OpenVINO, which is not installed. Run: python -m pip install 'poolkit[openvino]'"
    )


def test_nothing_is_sent_home_when_openvino_is_imported(bert):
    from openvino.tools.ovc import telemetry_utils

    assert bert.decisions  # the engine has imported it
    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
