"""A listwise reranker: its head normalises the scores of the documents of each query, whatever else is in the batch."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from checkpoints import real_texts
from poolkit import LLM, create_app
from poolkit.engine.poolers.task_head import OnTorch
from poolkit.errors import RequestError
from poolkit.testing import fake_model
from serving import HeldBackbone, ask

pytestmark = pytest.mark.usefixtures("one_thread")

LISTWISE = """
from itertools import islice

import torch
from pydantic import BaseModel

from poolkit import Operation, Output, PooledRows, PoolingIOProcessor, PoolingTask, Prepared, TextPair


class Documents(BaseModel):
    query: str
    documents: list[str]


class Request(BaseModel):
    lists: list[Documents]


class Response(BaseModel):
    shares: list[list[float]]


class Listwise(PoolingIOProcessor):
    def pre_process(self, request):
        pairs = [TextPair(each.query, document) for each in request.lists for document in each.documents]
        groups = [number for number, each in enumerate(request.lists) for _ in each.documents]
        return Prepared(pairs, groups=groups, state=[len(each.documents) for each in request.lists])

    def post_process(self, prepared, outputs):
        shares = iter([output.data.item() for output in outputs])
        return Response(shares=[list(islice(shares, size)) for size in prepared.state])


def create_head(context):
    def pool(states, batch):
        scores = states.tokens[states.segments.arrays.starts, 0].float()
        groups = torch.from_numpy(batch.groups)
        shares = torch.empty_like(scores)
        for group in groups.unique():
            shares[groups == group] = scores[groups == group].softmax(0)
        return PooledRows(shares[:, None])

    return pool


RANK = Operation(name="rank", request=Request, response=Response, io_processor="poolkit_listwise:Listwise")
LISTWISE = PoolingTask(
    name="listwise", api=1, summary="Shares of each list's documents.", output=Output.HIDDEN,
    head="poolkit_listwise:create_head", operations=(RANK,),
)
"""
TEXTS = [text[:150] for text in real_texts(40)[12:]]
SIZES = (3, 1, 5, 2)
PLUGIN = "poolkit-listwise"
TOLERANCE = 1e-5
"""The head computes in float32 on states that the batch changes by 1e-6 at most."""
PATIENCE_S = 30


def body(*sizes: int, first: int = 0) -> dict[str, object]:
    """Return a request of lists of such sizes, of the texts from one of them on."""
    texts = iter(TEXTS[first:])
    return {"lists": [{"query": next(texts), "documents": [next(texts) for _ in range(size)]} for size in sizes]}


def add(install, source: str) -> dict[str, object]:
    """Install the task; return the settings that serve it."""
    install(PLUGIN, {"poolkit_listwise": source}, tasks={"listwise": "poolkit_listwise:LISTWISE"})
    return {"task": "listwise", "enable": [PLUGIN], "dtype": "float32"}


@pytest.fixture
def listwise(install) -> dict[str, object]:
    return add(install, LISTWISE)


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("bert")


@pytest.fixture(scope="module")
def expected(folder) -> list[NDArray[np.float32]]:
    """Return the softmax over each list's scores, of pairs that transformers ran one by one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def score(query: str, document: str) -> torch.Tensor:
        return model(**tokenizer(query, document, return_tensors="pt")).last_hidden_state[0, 0, 0]

    with torch.inference_mode():
        return [
            torch.stack([score(each["query"], text) for text in each["documents"]]).softmax(0).numpy()
            for each in body(*SIZES)["lists"]
        ]


def assert_shares(found: list[list[float]], expected: list[NDArray[np.float32]]) -> None:
    assert [len(shares) for shares in found] == [len(shares) for shares in expected]
    for shares, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(shares, others, atol=TOLERANCE)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batching": "padded"},
        {"max_num_seqs": max(SIZES)},
        {"max_num_batched_tokens": 20},  # less than any list has
    ],
    ids=["all lists at once", "padded", "few prompts at once", "larger than the token budget"],
)
def test_the_scores_of_each_list_are_normalised_by_themselves(listwise, folder, expected, settings):
    with LLM(str(folder), **listwise, **settings) as llm:
        assert_shares(llm.run("rank", body(*SIZES), use_tqdm=False).shares, expected)
        answer = ask(create_app(llm), "POST", "/tasks/listwise/rank", json=body(*SIZES))
    assert_shares(answer.json()["shares"], expected)


@pytest.mark.usefixtures("listwise")
def test_lists_of_requests_that_run_together_do_not_mix():
    sizes = [(2, 3), (4,), (1, 2, 2), (3,)]
    bodies = [body(*each, first=number) for number, each in enumerate(sizes)]
    found: dict[int, list[list[float]]] = {}
    groups_together: list[int] = []

    class Held(HeldBackbone):
        def __init__(self, task):
            super().__init__(task)
            head = OnTorch(sys.modules["poolkit_listwise"].create_head(None))

            def pool(states, batch):
                groups_together.append(len(set(batch.groups.tolist())))
                return head(states, batch)

            self.pooler = pool

    with fake_model("listwise", plugin=PLUGIN, backbone=Held, max_num_seqs=64) as served:
        backbone = served._engine._parts[0]
        request = served.operations["rank"].operation.request
        [holding, *threads] = [
            threading.Thread(target=lambda n=n: found.update({n: served.run("rank", request(**bodies[n])).shares}))
            for n in range(len(bodies))
        ]
        holding.start()
        assert backbone.is_reached.wait(PATIENCE_S)
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while served.stats().prompts_waiting < sum(map(sum, sizes)):
            assert time.monotonic() < deadline, "nothing happened"
        backbone.may_go.set()
        for thread in (holding, *threads):
            thread.join(PATIENCE_S)
        together = list(groups_together)
        alone = [served.run("rank", request(**each)).shares for each in bodies]
    assert together == [2, sum(map(len, sizes[1:]))]
    for number, shares in enumerate(alone):
        assert_shares(found[number], shares)
        assert [sum(each) for each in shares] == pytest.approx([1] * len(shares), abs=TOLERANCE)


def test_a_list_that_is_longer_than_a_batch_may_be_is_the_clients_mistake(listwise, folder):
    message = (
        "3 prompts belong together (group 0), and at most 2 run in one batch (max_num_seqs). Send fewer in one request."
    )
    with LLM(str(folder), max_num_seqs=2, **listwise) as llm:
        answer = ask(create_app(llm), "POST", "/tasks/listwise/rank", json=body(3))
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
        with pytest.raises(RequestError) as caught:
            llm.run("rank", body(3), use_tqdm=False)
        assert str(caught.value) == message
        assert llm.served.stats().prompts_run == 0


def test_the_cache_keeps_no_share_of_a_list(listwise, folder, expected, tmp_path):
    settings = {**listwise, "enable": ["cache", PLUGIN]}
    longer = {"lists": [{**each, "documents": each["documents"][:-1]} for each in body(*SIZES)["lists"]]}
    with LLM(str(folder), plugins={"cache": {"folder": str(tmp_path)}}, **settings) as llm:
        llm.run("rank", longer, use_tqdm=False)
        assert_shares(llm.run("rank", body(*SIZES), use_tqdm=False).shares, expected)


def test_no_document_of_a_list_is_cut_into_chunks(install, folder, expected):
    kind = 'OutputKind(name="share", shape="(1,)", join=lambda outputs, combine: outputs[0])'
    source = LISTWISE.replace("output=Output.HIDDEN,", f"output=Output.HIDDEN, kind={kind},")
    settings = {**add(install, source.replace("Output, ", "Output, OutputKind, ")), "enable": ["chunking", PLUGIN]}
    chunking = {"chunking": {"max_chunk_tokens": 40}}
    long = body(2)
    long["lists"][0]["documents"][1] *= 9
    with LLM(str(folder), plugins=chunking, **settings) as llm:
        assert_shares(llm.run("rank", body(*SIZES), use_tqdm=False).shares, expected)
        with pytest.raises(RequestError) as caught:
            llm.run("rank", long, use_tqdm=False)
    assert sorted(caught.value.errors) == [0, 1]
    assert {str(error) for error in caught.value.errors.values()} == {
        f"Prompt 1 has {tokens_of(folder, long)} tokens; {folder} takes at most 256. Shorten it, or set "
        "truncate_prompt_tokens=-1 to have it cut to that length."
    }


def tokens_of(folder, asked: dict[str, object]) -> int:
    [documents] = asked["lists"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return len(tokenizer(documents["query"], documents["documents"][1])["input_ids"])
