"""The engine `openvino`: encoders answer what sentence-transformers answers, offline and over HTTP, from any thread."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
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
ENCODERS = ["bert", "roberta", "xlm_roberta", "mpnet", "distilbert", "deberta", "nomic_bert", "gte", "jina_v3"]
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


@pytest.fixture(scope="module")
def bert(checkpoint):
    """A tiny BERT for `embed`, loaded once."""
    with LLM(str(checkpoint("bert")), max_num_batched_tokens=512, **OPENVINO) as llm:
        yield llm


def embed(llm, texts=TEXTS):
    return np.stack([output.outputs.embedding for output in llm.embed(texts, use_tqdm=False)])


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
    assert found["engine"][0].startswith("openvino 20")
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
    backbone = load_backbone(read(folder, dtype="float32"))
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
    backbone = load_backbone(read(folder, dtype="float32"))
    ids = np.arange(5, 15)
    plain = make_batch([ids[:6]])
    expanded = make_batch([ids])
    expanded = Batch(
        expanded.token_ids, expanded.cu_seqlens, expanded.is_query, expanded.params, attention_lengths=np.array([6])
    )
    assert_close(backbone(expanded).tokens[:6], backbone(plain).tokens)


def test_the_weights_of_torch_are_dropped_after_conversion(checkpoint):
    def count():
        gc.collect()
        return sum(type(found).__name__ == "BertModel" for found in gc.get_objects())

    folder, before = checkpoint("bert"), count()
    backbone = load_backbone(read(folder, dtype="float32"))
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
    (folder / "modeling_branching.py").write_text(BRANCHING, "utf-8")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {**config, "auto_map": {"AutoModel": "modeling_branching.BranchingModel"}})
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
