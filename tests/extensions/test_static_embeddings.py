"""An engine in numpy for static embeddings, whose folders core cannot read: no transformers model, and no torch.

The contract's lines "an engine that needs no transformers model at all" (`describe`, `load_tokenizer`, `load_backbone`,
`poolkit.read_tokenizer`) and "needs neither torch nor transformers imported".
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from checkpoints import real_texts, write_json
from poolkit import LLM, create_app, read_tokenizer
from poolkit.errors import ModelError
from serving import ask

TEXTS = [text[:200] for text in real_texts(12)[1:] if text.strip()]
TOLERANCE = 1e-6
"""Sums of float32 in another order."""

ENGINE = """
import json

import numpy as np

from poolkit import Decision, ModelInfo, Output, PoolingSpec, States, TextSpec, VectorSpec, read_tokenizer


def describe(folder, *, config):
    settings = json.loads((folder / "config.json").read_text())
    if settings.get("model_type") != "static":
        return None
    rows, width = settings["embeddings"]
    return ModelInfo(
        name=config.model,
        path=folder,
        architecture="StaticModel",
        model_type="static",
        outputs=(Output.VECTOR,),
        hidden_size=width,
        text=TextSpec(max_model_len=100_000, vocab_size=rows),
        vector=VectorSpec(size=width),
        pooling=PoolingSpec(modes=("mean",)),
        decisions=(Decision("model", str(folder), "poolkit-static"),),
    )


def load_tokenizer(info):
    return read_tokenizer(info.path / "tokenizer.json")


class Lookup:
    def __init__(self, table):
        self.decisions = (Decision("path", f"a table of {len(table)} vectors", "poolkit-static"),)
        self._table = table

    def __call__(self, batch):
        return States(self._table[batch.token_ids])


def load_backbone(info, *, taps=()):
    return "a table of vectors has no layers to tap" if taps else Lookup(np.load(info.path / "embeddings.npy"))
"""


@pytest.fixture
def folder(install, tmp_path):
    """Return a folder of static embeddings, and install the engine that runs it."""
    install("poolkit-static", {"poolkit_static": ENGINE}, engines={"static": "poolkit_static"})
    folder = tmp_path / "static"
    folder.mkdir()
    words = sorted({word.lower() for text in TEXTS for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(["[UNK]", *words[::2]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).standard_normal((len(vocabulary), 16)).astype(np.float32)
    np.save(folder / "embeddings.npy", table)
    write_json(folder / "config.json", {"model_type": "static", "embeddings": table.shape})
    return folder


def load(folder):
    return LLM(str(folder), engine="static", enable=["poolkit-static"])


def vectors_of(folder, texts):
    """Return what the table and the tokenizer's library give by themselves."""
    tokenizer, table = Tokenizer.from_file(str(folder / "tokenizer.json")), np.load(folder / "embeddings.npy")
    tokenizer.no_truncation()
    rows = np.stack([table[tokenizer.encode(text).ids].mean(axis=0) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_it_embeds_scores_and_reranks_offline(folder):
    expected = vectors_of(folder, TEXTS)
    with load(folder) as llm:
        found = np.stack([output.outputs.embedding for output in llm.embed(TEXTS, use_tqdm=False)])
        scores = [output.outputs.score for output in llm.score(TEXTS[0], TEXTS[1:], use_tqdm=False)]
        ranked = [result.index for result in llm.rerank(TEXTS[0], TEXTS[1:], use_tqdm=False)]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    np.testing.assert_allclose(scores, expected[1:] @ expected[0], atol=TOLERANCE)
    assert ranked == np.argsort(-(expected[1:] @ expected[0]), kind="stable").tolist()


def test_it_answers_over_http(folder):
    expected = vectors_of(folder, TEXTS)
    with load(folder) as llm:
        app = create_app(llm)
        embedded = ask(app, "POST", "/v1/embeddings", json={"input": TEXTS}).json()["data"]
        scored = ask(app, "POST", "/score", json={"queries": TEXTS[0], "documents": TEXTS[1:]}).json()["data"]
        ranked = ask(app, "POST", "/rerank", json={"query": TEXTS[0], "documents": TEXTS[1:]}).json()["results"]
    np.testing.assert_allclose([item["embedding"] for item in embedded], expected, atol=TOLERANCE)
    np.testing.assert_allclose([item["score"] for item in scored], expected[1:] @ expected[0], atol=TOLERANCE)
    assert [item["index"] for item in ranked] == np.argsort(-(expected[1:] @ expected[0]), kind="stable").tolist()


def test_the_report_and_inspect_show_it(folder):
    with load(folder) as llm:
        report = {line.name: (line.value, line.source) for line in llm.decisions}
    rows = len(np.load(folder / "embeddings.npy"))
    assert report["model"] == (str(folder), "poolkit-static")
    assert report["path"] == (f"a table of {rows} vectors", "poolkit-static")
    ran = run_beside(
        folder,
        "import sys; from poolkit.cli import main\n"
        f"sys.argv = ['poolkit', 'inspect', {str(folder)!r}, '--engine', 'static', '--plugin', 'static', '--json']\n"
        "main()",
    )
    shown = json.loads(ran)
    assert {"name": "model", "value": str(folder), "source": "poolkit-static"} in shown["decisions"]
    assert (shown["tasks"], shown["refused_tasks"]["classify"]) == (["embed"], "it has no classification head")


def test_neither_torch_nor_transformers_is_imported_while_it_answers_over_http(folder):
    ran = run_beside(
        folder,
        f"""
import asyncio, json, sys
import httpx
from poolkit import LLM, create_app

async def ask(app, path, body):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post(path, json=body)

with LLM({str(folder)!r}, engine="static", enable=["poolkit-static"]) as llm:
    app = create_app(llm)
    answers = [
        asyncio.run(ask(app, "/v1/embeddings", {{"input": "a cat"}})),
        asyncio.run(ask(app, "/rerank", {{"query": "a cat", "documents": ["the cat", "a dog"]}})),
    ]
print(json.dumps([[answer.status_code for answer in answers], sorted({{"torch", "transformers"}} & set(sys.modules))]))
""",
    )
    assert json.loads(ran) == [[200, 200], []]


def run_beside(folder: Path, program: str) -> str:
    """Return the output of a program in a process that finds the engine's package."""
    environment = {"PYTHONPATH": str(folder.parent / "site"), "PATH": "/usr/bin"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_tokenizer_file_that_cannot_be_read_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder / 'tokenizer.json'} cannot be read as a tokenizer: ")


def test_a_tokenizer_file_alone_gives_what_transformers_makes_of_it(checkpoint):
    from poolkit.tokenization.tokenizer import load_tokenizer
    from reading import read

    folder = checkpoint("bert")
    info = read(folder)
    alone, whole = read_tokenizer(folder / "tokenizer.json"), load_tokenizer(info)
    assert alone.pair_template == whole.pair_template
    assert alone.special_affixes == whole.special_affixes
    prompts = ["query: "] * len(TEXTS)
    for ours, theirs in zip(alone.text_tokens(TEXTS, prompts), whole.text_tokens(TEXTS, prompts), strict=True):
        assert (ours[0].tolist(), ours[1]) == (theirs[0].tolist(), theirs[1])
    ids = alone.encode_batch(TEXTS, add_special_tokens=True)
    assert [one.tolist() for one in ids] == [one.tolist() for one in whole.encode_batch(TEXTS, add_special_tokens=True)]
    assert alone.join(alone.tokens(ids[0])) == whole.join(whole.tokens(ids[0]))
