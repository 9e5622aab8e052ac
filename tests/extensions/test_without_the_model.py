"""One side of a task, or a whole operation, that needs no forward pass is answered in the worker pool.

The contract's lines "sparse outputs" (`PoolingTask.kind`, `poolkit.SPARSE`) and "no forward pass: a task, or one side
of it, that answers in the worker pool".
"""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
import transformers

from checkpoints import real_texts
from poolkit import LLM, PoolingRequest, create_app
from poolkit.errors import OverloadedError
from poolkit.testing import fake_model
from serving import HeldBackbone, ask

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:200] for text in real_texts(12)[1:]]
TOLERANCE = 1e-4
"""The promise of fidelity.md for logits; sums in another order differ by 5e-6 at most here."""

LOOKUP = '''
import json

import numpy as np
from pydantic import BaseModel, ConfigDict

from poolkit import (
    POOLING, SPARSE, Operation, Output, PoolingIOProcessor, PoolingParams, PoolingTask, Prepared, Usage,
)


class Request(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"queries": ["a cat"], "documents": ["a cat sat"]}]}
    )

    queries: list[str] = []
    documents: list[str] = []


class Response(BaseModel):
    queries: list[dict[int, float]]
    documents: list[dict[int, float]]
    usage: Usage


class Lookup(PoolingIOProcessor):
    """Looks the tokens of queries up in a table of weights."""

    def __init__(self, context):
        super().__init__(context)
        file = context.model.path / "query_weights.json"
        self._weights = {int(token): weight for token, weight in json.loads(file.read_text()).items()}
        self._params = context.encoder.resolve(PoolingParams(add_special_tokens=False))

    def pre_process(self, request):
        return Prepared(request.documents, state=request.queries)

    def post_process(self, prepared, outputs):
        queries = prepared.state
        encoded = self.context.encoder.encode(queries, [self._params] * len(queries))
        for prompt in encoded:
            if isinstance(prompt, Exception):
                raise prompt
        return Response(
            queries=[{token: self._weights[token] for token in set(prompt.token_ids.tolist())} for prompt in encoded],
            documents=[dict(zip(one.indices.tolist(), one.data.tolist())) for one in outputs],
            usage=Usage.of(outputs),
        )


LOOKUP = PoolingTask(
    name="lookup",
    api=1,
    summary="Sparse embeddings whose queries need no model.",
    output=Output.HIDDEN,
    kind=SPARSE,
    head="lookup_head:create_head",
    operations=(
        Operation(
            name="sparse", request=Request, response=Response, io_processor="lookup:Lookup", per_prompt=("documents",)
        ),
        POOLING,
    ),
)
'''
LOOKUP_HEAD = """
import torch
from poolkit import PooledRows, load_masked_lm_head

def create_head(context):
    to_logits = load_masked_lm_head(context)

    def pool(states, batch):
        texts = [to_logits(rows).amax(0).relu().log1p() for rows in states.segments.split(states.tokens)]
        columns = [weights.nonzero()[:, 0] for weights in texts]
        values = [weights[kept] for weights, kept in zip(texts, columns)]
        return PooledRows(torch.cat(values), [len(kept) for kept in columns], torch.cat(columns))

    return pool
"""


@pytest.fixture
def llm(install, tmp_path, checkpoint):
    folder = tmp_path / "model"
    made = checkpoint("bert", head="ForMaskedLM", sentence_transformers=False)
    transformers.AutoModelForMaskedLM.from_pretrained(made).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made)
    tokenizer.save_pretrained(folder)
    (folder / "query_weights.json").write_text(json.dumps({token: token / 8 for token in range(len(tokenizer))}))
    modules = {"lookup": LOOKUP, "lookup_head": LOOKUP_HEAD}
    install("poolkit-lookup", modules, tasks={"lookup": "lookup:LOOKUP"})
    with LLM(str(folder), task="lookup", enable=["poolkit-lookup"], dtype="float32") as llm:
        yield llm


def both_ways(llm, **fields):
    """Return what an operation answers offline, which must be what it answers over HTTP."""
    offline = json.loads(llm.run("sparse", fields, use_tqdm=False).model_dump_json())
    answer = ask(create_app(llm), "POST", "/tasks/lookup/sparse", json=fields)
    assert answer.status_code == 200
    assert answer.json().keys() == offline.keys()
    assert answer.json()["queries"] == offline["queries"]
    return offline


def weights_of(folder, text):
    """Return what transformers' masked language model says of a text."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].amax(0).relu().log1p().numpy()


def test_documents_run_through_the_model(llm):
    answered = both_ways(llm, queries=[], documents=TEXTS)
    for text, found in zip(TEXTS, answered["documents"], strict=True):
        expected = weights_of(llm.served.info.path, text)
        dense = np.zeros_like(expected)
        dense[[int(token) for token in found]] = list(found.values())
        np.testing.assert_allclose(dense, expected, atol=TOLERANCE)
    [pooled] = ask(create_app(llm), "POST", "/pooling", json={"input": TEXTS[:1]}).json()["data"]
    assert pooled["data"]["indices"] == [int(token) for token in answered["documents"][0]]
    np.testing.assert_allclose(pooled["data"]["values"], list(answered["documents"][0].values()), atol=TOLERANCE)


def test_queries_run_nothing_through_the_model(llm):
    answered = both_ways(llm, queries=TEXTS[:3], documents=[])
    tokenizer = transformers.AutoTokenizer.from_pretrained(llm.served.info.path)
    for text, found in zip(TEXTS, answered["queries"], strict=False):
        ids = set(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert found == {str(token): token / 8 for token in ids}
    assert answered["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert llm.served.stats().prompts_run == 0
    both_ways(llm, queries=TEXTS[:3], documents=TEXTS[:2])
    assert llm.served.stats().prompts_run == 4


SCRIPT = '''
import unicodedata
from collections import Counter

from pydantic import BaseModel, ConfigDict

from poolkit import POOLING, Operation, Output, PoolingIOProcessor, PoolingTask, Prepared


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": ["a cat", "кошка"]}]})

    texts: list[str]


class Response(BaseModel):
    scripts: list[str]


class Script(PoolingIOProcessor):
    """Tells the script of a text by the names of its letters."""

    def pre_process(self, request):
        return Prepared([], state=request.texts)

    def post_process(self, prepared, outputs):
        return Response(scripts=[script(text) for text in prepared.state])


def script(text):
    found = Counter(unicodedata.name(letter, "unknown").split()[0].lower() for letter in text if letter.isalpha())
    return found.most_common(1)[0][0] if found else "none"


SCRIPT = PoolingTask(
    name="script",
    api=1,
    summary="The script that a text is written in.",
    output=Output.VECTOR,
    operations=(
        Operation(name="script", request=Request, response=Response, io_processor="script:Script"),
        POOLING,
    ),
)
'''


def test_an_operation_that_needs_no_model_is_answered_while_that_is_busy_and_its_queue_full(install):
    install("poolkit-script", {"script": SCRIPT}, tasks={"script": "script:SCRIPT"})
    texts = ["a cat", "кошка", "γάτα", "12"]
    expected = {"scripts": ["latin", "cyrillic", "greek", "none"]}
    held: list[HeldBackbone] = []

    def backbone(task):
        held.append(HeldBackbone(task))
        return held[0]

    with fake_model("script", plugin="poolkit-script", backbone=backbone, max_waiting_prompts=1) as served:
        waiting = threading.Thread(target=served.run, args=("pooling", PoolingRequest(input="a text")))
        waiting.start()
        held[0].is_reached.wait()
        try:
            with pytest.raises(OverloadedError):
                served.run("pooling", PoolingRequest(input="another"))
            request = served.operations["script"].operation.request(texts=texts)
            assert served.run("script", request).model_dump() == expected
            answer = ask(create_app(served), "POST", "/tasks/script/script", json={"texts": texts})
            assert (answer.status_code, answer.json()) == (200, expected)
        finally:
            held[0].may_go.set()
            waiting.join()
        assert served.stats().prompts_run == 1
