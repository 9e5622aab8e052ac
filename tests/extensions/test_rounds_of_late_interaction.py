"""A task of two rounds of late interaction: the second one's documents are scored against the first one's query."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from poolkit import Batch, ModelConfig, PluginConfig, PoolingRequest, compute_maxsim_score_batched, create_app
from poolkit.config import Reference
from poolkit.engine.model import LoadedModel
from poolkit.errors import EngineError, HookError, RequestError
from poolkit.pipeline.params import ParamsResolver
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Registry
from poolkit.testing import FAKE_MODEL, FakeBackbone, fake_model
from poolkit.testing.fake_engine import FakeTokenizer, load_fake
from poolkit.tokenization import Encoder
from serving import ask

ZOOM = '''
from pydantic import BaseModel

from poolkit import (
    POOLING, LateInteractionParams, Operation, Output, PoolingIOProcessor, PoolingParams, PoolingTask, Prepared,
)

KEEP = PoolingParams(late_interaction=LateInteractionParams("cache_query", "query"))
SCORE = PoolingParams(late_interaction=LateInteractionParams("score_doc", "query"))


class Request(BaseModel):
    query: str
    documents: list[str]


class Response(BaseModel):
    scores: list[float]


class Zoom(PoolingIOProcessor):
    """Scores documents, then each word of the best one."""

    def pre_process(self, request):
        params = [SCORE] * len(request.documents) + [KEEP]
        return Prepared([*request.documents, request.query], params, state=request.documents)

    def post_process(self, prepared, outputs):
        if prepared.state is None:
            return self.answer(outputs)
        scores = [output.data.item() for output in outputs[:-1]]
        return Prepared(prepared.state[scores.index(max(scores))].split(), SCORE)

    def answer(self, outputs):
        return Response(scores=[output.data.item() for output in outputs])


SEARCH = Operation(
    name="search", request=Request, response=Response, io_processor="poolkit_zoom:Zoom", max_rounds=2
)
ZOOM = PoolingTask(
    name="zoom", api=1, summary="Scores words of the best text.", output=Output.TOKEN_VECTORS,
    operations=(SEARCH, POOLING),
)
'''
QUERY, DOCUMENTS = "where is it", ["far", "a b c", "in the house"]
PATIENCE_S = 30
MODEL = replace(FAKE_MODEL, config=ModelConfig(max_num_seqs=1))


class Counting(FakeBackbone):
    """Notes how many queries are kept when each batch starts; holds all batches from one of them on.

    Attributes:
        engine: the model that it is a part of.
        holds_at: the number of batches that run before the rest are held, until `may_go`.
    """

    engine: LoadedModel[NDArray[np.float32]]

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self.kept: list[int] = []
        self.holds_at = 1 << 30
        self.is_held = threading.Event()
        self.may_go = threading.Event()

    def __call__(self, batch: Batch):
        self.kept.append(self.engine.queries_kept)
        if len(self.kept) > self.holds_at:
            self.is_held.set()
            self.may_go.wait(PATIENCE_S)
        return super().__call__(batch)


@contextmanager
def serving(**settings: object) -> Iterator[tuple[ServedModel, Counting]]:
    registry = Registry.load(PluginConfig(enable=(Reference("poolkit-zoom", "a test"),)))
    task = registry.get_pooling_task(["zoom"], "zoom")
    encoder = Encoder(FakeTokenizer(), MODEL, ParamsResolver(task, MODEL))
    backbone = Counting(task, **settings)
    backbone.engine = load_fake(task, backbone)
    served = ServedModel(
        info=MODEL,
        task=registry.bind(task, MODEL, encoder),
        registry=registry,
        encoder=encoder,
        engine=backbone.engine,
    )
    try:
        yield served, backbone
    finally:
        backbone.may_go.set()
        served.close()


@pytest.fixture
def zoom(install):
    def install_zoom(source: str = ZOOM) -> None:
        install("poolkit-zoom", {"poolkit_zoom": source}, tasks={"zoom": "poolkit_zoom:ZOOM"})

    return install_zoom


def body(query: str = QUERY, documents: list[str] = DOCUMENTS) -> dict[str, object]:
    return {"query": query, "documents": documents}


def search(served: ServedModel, **asked: object) -> list[float]:
    request = served.operations["search"].operation.request(**body(**asked))
    return served.run("search", request).scores


def queries_left(served: ServedModel, backbone: Counting) -> int:
    """Return how many queries are kept once the engine has heard of all that ended: before it runs another batch."""
    backbone.may_go.set()
    served.run("pooling", PoolingRequest(input="one more"))
    return backbone.engine.queries_kept


def expected_scores(query: str, documents: list[str]) -> list[float]:
    with fake_model("token_embed") as plain:

        def vectors(texts: list[str]) -> list[np.ndarray]:
            data = plain.run("pooling", PoolingRequest(input=texts, use_activation=False)).data
            return [np.asarray(rows, np.float32) for rows in data]

        def scores(texts: list[str]) -> list[float]:
            return list(compute_maxsim_score_batched(vectors([query]) * len(texts), vectors(texts)))

        return scores(documents[int(np.argmax(scores(documents)))].split())


def test_documents_of_the_second_round_are_scored_against_the_query_of_the_first(zoom):
    zoom()
    expected = expected_scores(QUERY, DOCUMENTS)
    with serving() as (served, backbone):
        offline = search(served)
        online = ask(create_app(served), "POST", "/tasks/zoom/search", json=body()).json()["scores"]
        np.testing.assert_allclose(offline, expected, atol=1e-5)
        np.testing.assert_allclose(online, expected, atol=1e-5)
        assert backbone.kept[1 : 1 + len(DOCUMENTS) + len(expected)] == [1] * (len(DOCUMENTS) + len(expected))
        assert queries_left(served, backbone) == 0


def test_requests_that_call_their_queries_alike_keep_apart(zoom):
    zoom()
    queries = [f"query {number} of many" for number in range(6)]
    found: dict[str, list[float]] = {}
    with serving() as (served, backbone):
        backbone.holds_at = 0  # so that all of them wait together

        def ask_for(query: str) -> None:
            found[query] = search(served, query=query)

        threads = [threading.Thread(target=ask_for, args=(query,)) for query in queries]
        for thread in threads:
            thread.start()
        wait_for(lambda: served.stats().prompts_waiting == len(queries) * (len(DOCUMENTS) + 1))
        backbone.may_go.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert max(backbone.kept) > 1
        assert queries_left(served, backbone) == 0
    for query in queries:
        np.testing.assert_allclose(found[query], expected_scores(query, DOCUMENTS), atol=1e-5)


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ("raise RuntimeError", HookError),
        ("raise RequestError('no')", RequestError),
        ("return Prepared(['a'], SCORE)", HookError),
    ],
    ids=["fails", "refuses", "asks for a third"],
)
def test_no_query_is_left_when_the_second_post_process_raises(zoom, changed, error):
    zoom(f"from poolkit.errors import RequestError\n{ZOOM.replace('return self.answer(outputs)', changed)}")
    with serving() as (served, backbone):
        with pytest.raises(error):
            search(served)
        assert backbone.kept[-1] == 1
        assert queries_left(served, backbone) == 0


def test_no_query_is_left_when_the_first_post_process_raises(zoom):
    zoom(ZOOM.replace("scores = [", "raise RuntimeError; scores = ["))
    with serving() as (served, backbone):
        answer = ask(create_app(served), "POST", "/tasks/zoom/search", json=body())
        assert answer.status_code == 500
        assert queries_left(served, backbone) == 0


def test_no_query_is_left_when_the_model_fails_in_the_second_round(zoom):
    zoom()
    with serving(fails_on=lambda prompt: len(prompt.token_ids) == 3) as (served, backbone):
        documents = ["one two", "three four"]
        with pytest.raises(EngineError):
            search(served, documents=documents)
        assert backbone.kept == [0, 1, 1]
        assert ask(create_app(served), "POST", "/tasks/zoom/search", json=body(documents=documents)).status_code == 500
        assert queries_left(served, backbone) == 0


def test_no_query_is_left_when_a_prompt_of_the_second_round_is_refused(zoom):
    zoom(ZOOM.replace("return Prepared(prepared.state", "return Prepared(['word ' * 99] or prepared.state"))
    with serving() as (served, backbone):
        with pytest.raises(RequestError) as caught:
            search(served)
        assert str(caught.value) == (
            "Prompt 0 has 101 tokens; fake takes at most 64. Shorten it, or set truncate_prompt_tokens=-1 to have it "
            "cut to that length."
        )
        assert queries_left(served, backbone) == 0


def test_no_query_is_left_when_the_caller_gives_up_in_the_second_round(zoom):
    zoom()
    with serving() as (served, backbone):
        backbone.holds_at = len(DOCUMENTS) + 1

        def interrupt(done: int, size: int) -> None:  # noqa: ARG001
            if backbone.is_held.is_set():
                raise KeyboardInterrupt

        request = served.operations["search"].operation.request(**body(documents=["a b", "c d", "e f"]))
        with pytest.raises(KeyboardInterrupt):
            served.run("search", request, on_progress=interrupt)
        assert backbone.kept[-1] == 1
        assert queries_left(served, backbone) == 0
        assert len(backbone.kept) == len(DOCUMENTS) + 3  # those of round one, the held one, and "one more"


def test_no_query_is_left_when_the_client_leaves_in_the_second_round(zoom):
    zoom()
    with serving() as (served, backbone):
        backbone.holds_at = len(DOCUMENTS) + 1
        asyncio.run(leave_when(served, backbone.is_held))
        assert backbone.kept[-1] == 1
        assert queries_left(served, backbone) == 0
        assert len(backbone.kept) == len(DOCUMENTS) + 3


def test_no_prompt_of_the_second_round_runs_when_the_client_leaves_between_the_rounds(zoom):
    gates = "import threading\nIS_BETWEEN, MAY_GO = threading.Event(), threading.Event()\n"
    zoom(gates + ZOOM.replace("scores = [output", "IS_BETWEEN.set(); MAY_GO.wait(30); scores = [output", 1))
    with serving() as (served, backbone):
        module = sys.modules["poolkit_zoom"]
        asyncio.run(leave_when(served, module.IS_BETWEEN))
        module.MAY_GO.set()
        wait_for(lambda: served.stats().prompts_cancelled > 0)
        assert queries_left(served, backbone) == 0
        assert len(backbone.kept) == len(DOCUMENTS) + 2


async def leave_when(served: ServedModel, event: threading.Event) -> None:
    """Send a request whose best document has two words, and cancel it once the event is set."""
    request = served.operations["search"].operation.request(**body(documents=["a b", "c d", "e f"]))
    task = asyncio.ensure_future(served.arun("search", lambda: request, lambda response: response))
    await asyncio.to_thread(event.wait, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
