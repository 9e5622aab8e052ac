"""An engine is a package with one function: batch in, hidden states out. Everything after them is core's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from checkpoints import real_texts
from poolkit import LLM, PoolingParams
from poolkit.errors import ClosedError, EngineError, ModelError

Install = Callable[..., None]

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:200] for text in real_texts(30)[1:]]
TOLERANCE = 1e-5
"""The promise of fidelity.md; sums in another order differ by 1e-6 at most here."""

STATIC = """
from safetensors.numpy import load_file
from poolkit import Decision, States

class StaticBackbone:
    decisions = (Decision("path", "a table of word vectors", "the engine"),)

    def __init__(self, table):
        self._table = table

    def __call__(self, batch):
        return States(self._table[batch.token_ids])

def load_backbone(info, *, taps=()):
    if taps:
        return "a table of word vectors has no layers to tap"
    weights = load_file(info.path / "model.safetensors")
    return StaticBackbone(weights["embeddings.word_embeddings.weight"])
"""
"""A model2vec in twenty lines: each token's vector is looked up, and the model's own layers are left out."""

WRONG = """
from poolkit import States

class Backbone:
    decisions = ()

    def __call__(self, batch):
        return States(batch.token_ids[:-1, None].astype("float32"))

def load_backbone(info, *, taps=()):
    return Backbone()
"""

UNDER_TORCH = """
from poolkit import Decision, States

class Backbone:
    decisions = (Decision("path", "padded, one by one", "the engine"),)

    def __init__(self, folder):
        import torch
        import transformers
        self._torch, self._model = torch, transformers.AutoModel.from_pretrained(folder).eval()

    def __call__(self, batch):
        import numpy as np
        with self._torch.inference_mode():
            rows = [
                self._model(self._torch.from_numpy(ids[None].astype("int64"))).last_hidden_state[0].numpy()
                for ids in batch.segments.split(batch.token_ids)
            ]
        return States(np.concatenate(rows))

def load_backbone(info, *, taps=()):
    return Backbone(info.path)
"""
"""Any library that runs a model: what it gives are numpy arrays."""

CLOSED = f"""
import threading
{STATIC}
LOG, STARTED, GO, DONE = [], threading.Event(), threading.Event(), threading.Event()
call = StaticBackbone.__call__

def run(self, batch):
    STARTED.set()
    GO.wait()
    LOG.append("ran")
    return call(self, batch)

def close(self):
    LOG.append("closed")
    DONE.set()

StaticBackbone.__call__ = run
StaticBackbone.close = close
"""
"""It may hold what must be given back."""


def add(install: Install, source: str) -> dict[str, object]:
    """Install an engine; return the settings that use it."""
    install("poolkit-tiny-engine", {"tiny_engine": source}, engines={"tiny": "tiny_engine"})
    return {"engine": "tiny", "enable": ["poolkit-tiny-engine"], "dtype": "float32"}


def ids_of(folder, texts=TEXTS):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in texts]


def test_static_embeddings(install, checkpoint):
    folder = checkpoint("bert")
    table = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    means = [table[ids].mean(axis=0) for ids in ids_of(folder)]
    with LLM(str(folder), **add(install, STATIC)) as llm:
        assert [decision.value for decision in llm.decisions if decision.name == "path"] == ["a table of word vectors"]
        for output, mean in zip(llm.embed(TEXTS, use_tqdm=False), means, strict=True):
            np.testing.assert_allclose(output.outputs.embedding, mean / np.linalg.norm(mean), atol=TOLERANCE)
        [raw] = llm.encode(TEXTS[:1], pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
        np.testing.assert_allclose(raw.outputs.data, means[0], atol=TOLERANCE)
        assert len(llm.score(TEXTS[0], TEXTS[1:4], use_tqdm=False)) == 3


def test_dense_layers_of_the_model_follow(install, checkpoint):
    folder = checkpoint("bert", dense=20)
    with LLM(str(folder), **add(install, UNDER_TORCH)) as llm, LLM(str(folder), dtype="float32") as plain:
        for ours, theirs in zip(llm.embed(TEXTS, use_tqdm=False), plain.embed(TEXTS, use_tqdm=False), strict=True):
            np.testing.assert_allclose(ours.outputs.embedding, theirs.outputs.embedding, atol=TOLERANCE)


def test_late_interaction_is_scored_inside_any_engine(install, checkpoint):
    folder = checkpoint("bert")
    settings = {"task": "token_embed", **add(install, UNDER_TORCH)}
    with LLM(str(folder), **settings) as llm, LLM(str(folder), task="token_embed", dtype="float32") as plain:
        scores = [one.score(TEXTS[0], TEXTS[1:9], use_tqdm=False) for one in (llm, plain)]
        for ours, theirs in zip(*scores, strict=True):
            assert ours.outputs.score == pytest.approx(theirs.outputs.score, rel=1e-5)


def test_a_classifier_keeps_its_own_head(install, checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with LLM(str(folder), **add(install, UNDER_TORCH)) as llm, torch.inference_mode():
        for output, ids in zip(llm.classify(TEXTS, use_tqdm=False), ids_of(folder), strict=True):
            expected = model(torch.tensor([ids])).logits[0].softmax(0)
            np.testing.assert_allclose(output.outputs.probs, expected, atol=TOLERANCE)


def test_a_head_that_cannot_be_run_alone_is_not_run_by_another_engine_in_silence(install, checkpoint, tmp_path):
    """ALBERT's base pools with a bare linear layer, whose activation stands elsewhere."""
    settings = transformers.AlbertConfig(
        vocab_size=800, embedding_size=16, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, initializer_range=0.15, pad_token_id=0, num_labels=3,
    )  # fmt: skip
    folder = tmp_path / "albert"
    transformers.AlbertForSequenceClassification(settings).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(checkpoint("bert")).save_pretrained(folder)
    with pytest.raises(ModelError) as caught:
        LLM(str(folder), **add(install, UNDER_TORCH))
    assert str(caught.value) == (
        f"The engine 'tiny' cannot run {folder}: its head cannot be run without the rest of the model. Choose another "
        "engine."
    )


def test_states_of_the_wrong_shape_are_the_engines_failure(install, checkpoint):
    with LLM(str(checkpoint("bert")), **add(install, WRONG)) as llm, pytest.raises(EngineError) as caught:
        llm.embed("hello", use_tqdm=False)
    assert str(caught.value) == (
        "The engine gave tokens of shape (3, 1) for 1 prompts of 4 tokens. It must give one row for each prompt, or "
        "for each token."
    )


def test_an_engine_says_why_it_cannot_run_a_model(install, checkpoint):
    refusing = 'def load_backbone(info, *, taps=()):\n    return "its layers are not those of a BERT"\n'
    folder = checkpoint("bert")
    with pytest.raises(ModelError) as caught:
        LLM(str(folder), **add(install, refusing))
    assert str(caught.value) == (
        f"The engine 'tiny' cannot run {folder}: its layers are not those of a BERT. Choose another engine."
    )


def test_an_engine_is_closed_with_its_model(install, checkpoint):
    with LLM(str(checkpoint("bert")), **add(install, CLOSED)) as llm:
        engine = sys.modules["tiny_engine"]
        engine.GO.set()
        llm.embed("hello", use_tqdm=False)
        assert engine.LOG == ["ran"]
    assert engine.LOG == ["ran", "closed"]
    llm.close()
    assert engine.LOG == ["ran", "closed"]


def test_an_engine_that_still_runs_a_batch_is_closed_after_it(install, checkpoint):
    llm = LLM(str(checkpoint("bert")), **add(install, CLOSED))
    engine = sys.modules["tiny_engine"]
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(llm.embed, "hello", use_tqdm=False)
        assert engine.STARTED.wait(10)
        llm.served.close(timeout_s=0)
        assert engine.LOG == []
        engine.GO.set()
        assert isinstance(answer.exception(), ClosedError)
    assert engine.DONE.wait(10)
    assert engine.LOG == ["ran", "closed"]


def test_an_engine_that_fails_to_close_is_logged(install, checkpoint, caplog):
    folder = checkpoint("bert")
    failing = CLOSED.replace("DONE.set()", "1 / 0")
    with caplog.at_level(logging.ERROR), LLM(str(folder), **add(install, failing)):
        pass
    [record] = caplog.records
    assert record.getMessage() == f"The engine of {folder} failed in close."
    assert record.exc_info[0] is ZeroDivisionError


def test_an_engine_is_closed_where_a_classifiers_head_cannot_be_loaded(install, checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    source = CLOSED.replace('"embeddings.', '"bert.embeddings.') + "\ndef find_device(info):\n    1 / 0\n"
    with pytest.raises(ZeroDivisionError):
        LLM(str(folder), **add(install, source))
    assert sys.modules["tiny_engine"].LOG == ["closed"]
