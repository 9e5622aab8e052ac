"""Late interaction next to the model: the same scores as without, and no query that outlives its request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from checkpoints import real_texts
from closeness import assert_close, assert_ranks
from engines import choose, load_tokenizer, make_encoder
from poolkit import (
    LateInteractionParams,
    ModelConfig,
    PluginConfig,
    PooledOutput,
    PoolerConfig,
    PoolingRequest,
    RerankRequest,
    RerankResponse,
    ResolvedParams,
    ScoreRequest,
    ScoreResponse,
    create_app,
)
from poolkit.contract import EncodedPrompt, NoSettings
from poolkit.engine.job import Admission
from poolkit.engine.model import Engine
from poolkit.engine.scheduler import Scheduler
from poolkit.engine.streams import Streams
from poolkit.errors import ClosedError, EngineError, RequestError
from poolkit.models import read_model
from poolkit.pipeline.served import ServedModel
from poolkit.pipeline.weights import load_weights
from poolkit.registry import Registry
from poolkit.testing import FakeBackbone
from poolkit.testing.fake_engine import load_fake
from poolkit_tasks.token_embed import TOKEN_EMBED
from reading import tables

if TYPE_CHECKING:
    import torch

    from poolkit.engine.model import LoadedModel

pytestmark = pytest.mark.usefixtures("one_thread")

QUERY = "Where did the cat sit?"
DOCUMENTS = [*real_texts(60)]
SMALL_BATCHES = {"max_num_batched_tokens": 300}

Condition = Callable[[EncodedPrompt], bool]


class Watched:
    """An engine that records what it gives, and can be held or made to fail.

    Attributes:
        holds_at: how many batches run before one is held until `may_go`.
    """

    num_streams = efficient_tokens = 1

    def __init__(self, engine: LoadedModel[torch.Tensor]) -> None:
        self.engine = engine
        self.outputs: list[PooledOutput] = []
        self.batches: list[int] = []
        self.fails_on: Condition = lambda prompt: False  # noqa: ARG005
        self.memory_tokens = 1 << 30
        self.holds_at = 1 << 30
        self.is_held = threading.Event()
        self.may_go = threading.Event()

    @property
    def decisions(self):
        return self.engine.decisions

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        if len(self.batches) >= self.holds_at:
            self.is_held.set()
            self.may_go.wait()
        if any(map(self.fails_on, prompts)):
            raise RuntimeError("this prompt was made to fail")
        outputs = self.engine.forward(prompts)
        if sum(len(prompt.token_ids) for prompt in prompts) > self.memory_tokens:
            raise MemoryError  # at the worst moment: all is computed, and the queries are kept
        self.outputs += outputs
        self.batches.append(len(prompts))
        return outputs

    def release(self, keys: Sequence[str]) -> None:
        self.engine.release(keys)

    def close(self) -> None:
        self.engine.close()


@contextmanager
def serve(folder: Path, *, flash: bool = True, **settings: object) -> Iterator[tuple[ServedModel, Watched]]:
    pooler = PoolerConfig(enable_flash_late_interaction=flash)
    config = ModelConfig(**{"model": str(folder), "dtype": "float32", "pooler_config": pooler, **settings})
    info = read_model(config, tables())
    encoder = make_encoder(load_tokenizer(folder), info)
    engine = Watched(load_weights(choose("torch"), info, task=TOKEN_EMBED, settings=NoSettings(), encoder=encoder))
    registry = Registry.load(PluginConfig())
    task = registry.bind(TOKEN_EMBED, info, encoder)
    served = ServedModel(info=info, task=task, registry=registry, encoder=encoder, engine=engine)
    try:
        yield served, engine
    finally:
        engine.may_go.set()
        served.close()


@pytest.fixture(scope="module")
def folder(checkpoint) -> Path:
    return checkpoint("bert")


@pytest.fixture(scope="module")
def without(folder) -> Iterator[ServedModel]:
    with serve(folder, flash=False) as (served, _):
        yield served


@pytest.fixture
def model(folder) -> Iterator[tuple[ServedModel, Watched]]:
    with serve(folder, **SMALL_BATCHES) as (served, engine):
        yield served, engine


def score(served: ServedModel, queries: str | list[str], documents: Sequence[str]) -> np.ndarray:
    response = served.run("score", ScoreRequest(queries=queries, documents=list(documents), truncate_prompt_tokens=-1))
    assert isinstance(response, ScoreResponse)
    return response.scores


def queries_kept(served: ServedModel, engine: Watched) -> int:
    """Return how many queries are kept once the engine has heard of all that ended: before it runs another batch."""
    engine.may_go.set()
    served.run("pooling", PoolingRequest(input="one more"))
    return engine.engine.queries_kept


@pytest.mark.parametrize(
    ("queries", "documents"),
    [
        (QUERY, DOCUMENTS),
        (QUERY, DOCUMENTS[11]),
        (DOCUMENTS[20:40], DOCUMENTS[:20]),
        ([QUERY, DOCUMENTS[3], QUERY, QUERY], [DOCUMENTS[30], DOCUMENTS[30], DOCUMENTS[31], DOCUMENTS[30]]),
    ],
    ids=["one with many", "one with one", "pairwise", "pairwise with repeats"],
)
def test_scores_are_those_of_the_plain_way_and_nothing_but_scores_leaves(model, without, queries, documents):
    served, engine = model
    scores = score(served, queries, documents if isinstance(documents, list) else [documents])
    expected = score(without, queries, documents if isinstance(documents, list) else [documents])
    assert_close(scores, expected)
    vectors = [output for output in engine.outputs if output.data.ndim == 2]
    assert len(vectors) == len({queries} if isinstance(queries, str) else set(queries))
    assert len(engine.outputs) - len(vectors) == len(scores)
    assert engine.engine.queries_kept == 0


def test_documents_of_one_query_run_in_several_batches(model, without):
    served, engine = model
    assert_close(score(served, QUERY, DOCUMENTS), score(without, QUERY, DOCUMENTS))
    assert len(engine.batches) > 5  # how full they are depends on how fast the documents come


def test_requests_at_the_same_time_keep_apart(model, without):
    served, engine = model
    queries = DOCUMENTS[10:22]
    found: dict[str, np.ndarray] = {}

    def ask(query: str) -> None:
        found[query] = score(served, query, DOCUMENTS[:15])

    threads = [threading.Thread(target=ask, args=(query,)) for query in queries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for query in queries:
        assert_close(found[query], score(without, query, DOCUMENTS[:15]))
    assert queries_kept(served, engine) == 0


def test_rerank_sorts_by_the_same_scores(model, without):
    request = RerankRequest(query=QUERY, documents=DOCUMENTS, top_n=7, truncate_prompt_tokens=-1)
    responses = [served.run("rerank", request) for served in (model[0], without)]
    first, second = (
        [(one.index, one.relevance_score) for one in response.results]
        for response in responses
        if isinstance(response, RerankResponse)
    )
    assert len(first) == len(second) == 7
    expected = score(without, QUERY, DOCUMENTS)
    assert_ranks(first, expected)
    assert_ranks(second, expected)


def test_a_batch_that_does_not_fit_is_run_again_without_losing_its_query(model, without, caplog):
    served, engine = model
    engine.memory_tokens = 256
    assert_close(score(served, QUERY, DOCUMENTS), score(without, QUERY, DOCUMENTS))
    assert caplog.records[0].getMessage().startswith("Out of memory")
    assert queries_kept(served, engine) == 0


def test_a_document_whose_query_is_not_there_comes_back_as_vectors(model, folder):
    _, engine = model
    [ids] = load_tokenizer(folder).encode_batch([DOCUMENTS[12]], add_special_tokens=True)
    plain = EncodedPrompt(ids, ResolvedParams())
    [vectors, expected] = engine.engine.forward(
        [replace(plain, params=ResolvedParams(late_interaction=LateInteractionParams("score_doc", "gone"))), plain]
    )
    assert_close(vectors.data, expected.data)


def holds(text: str, folder: Path) -> Condition:
    """Return a condition that holds for prompts with the tokens of a text."""
    [ids] = load_tokenizer(folder).encode_batch([text], add_special_tokens=True)
    return lambda prompt: np.array_equal(prompt.token_ids, ids)


@pytest.mark.parametrize("culprit", [QUERY, DOCUMENTS[40]], ids=["query", "document"])
def test_nothing_is_left_when_a_prompt_fails(model, folder, culprit, caplog):
    served, engine = model
    engine.fails_on = holds(culprit, folder)
    with pytest.raises(EngineError, match=r"^The forward pass failed on a prompt of \d+ tokens: RuntimeError\. "):
        score(served, QUERY, DOCUMENTS)
    assert len(caplog.records) == 1
    assert queries_kept(served, engine) == 0


@pytest.mark.parametrize("place", [0, 40], ids=["query", "document"])
def test_nothing_is_left_when_a_prompt_is_refused(model, place):
    served, engine = model
    texts = [QUERY, *DOCUMENTS]
    texts[place] = "no \ud800 text"
    with pytest.raises(RequestError) as error:
        score(served, texts[0], texts[1:])
    told = place - 1 if place else len(DOCUMENTS)  # documents by their own index
    assert str(error.value) == (
        f"Prompt {told}: the text holds a lone surrogate (U+D800) at character 3; it is not valid Unicode"
    )
    assert queries_kept(served, engine) == 0


def test_nothing_is_left_when_the_caller_gives_up(model):
    served, engine = model
    engine.holds_at = 2

    def interrupt(*_: int) -> None:
        if engine.is_held.is_set():
            assert engine.engine.queries_kept == 1
            raise KeyboardInterrupt

    request = ScoreRequest(queries=QUERY, documents=DOCUMENTS, truncate_prompt_tokens=-1)
    with pytest.raises(KeyboardInterrupt):
        served.run("score", request, on_progress=interrupt)
    assert queries_kept(served, engine) == 0
    assert len(engine.batches) == 4  # two, the held one, and that of the prompt that asked whether it is over


def test_nothing_is_left_when_the_client_leaves(model):
    served, engine = model
    engine.holds_at = 2
    app = create_app(served)
    body = ScoreRequest(queries=QUERY, documents=DOCUMENTS, truncate_prompt_tokens=-1).model_dump_json().encode()
    is_read = False

    async def receive() -> dict[str, object]:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}
        while not engine.is_held.is_set():
            await asyncio.sleep(0.001)  # the test's own timeout is the limit
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        pass

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""}
    scope |= {"method": "POST", "path": "/score", "raw_path": b"/score", "query_string": b"", "headers": []}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    asyncio.run(app(scope, receive, send))
    assert queries_kept(served, engine) == 0
    assert len(engine.batches) == 4


class Keeping:
    """Keeps the keys of queries, and nothing of them; holds each batch until it may go on."""

    decisions = ()
    num_streams = efficient_tokens = 1

    def __init__(self) -> None:
        self.model = load_fake(TOKEN_EMBED, FakeBackbone(TOKEN_EMBED))
        self.kept: set[str] = set()
        self.batches: list[list[int]] = []
        self.is_reached = threading.Event()
        self.may_go = threading.Event()

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        wishes = [prompt.params.late_interaction for prompt in prompts]
        self.kept |= {wish.query_key for wish in wishes if wish is not None and wish.mode == "cache_query"}
        assert {wish.query_key for wish in wishes if wish is not None and wish.mode == "score_doc"} <= self.kept
        self.batches.append([len(prompt.token_ids) for prompt in prompts])
        self.is_reached.set()
        self.may_go.wait()
        return self.model.forward(prompts)

    def release(self, keys: Sequence[str]) -> None:
        self.kept -= set(keys)
        self.model.release(keys)

    def close(self) -> None:
        self.model.close()


def start(engine: Engine) -> Scheduler:
    streams = Streams(1, None, efficient_tokens=1, source="the test")
    return Scheduler(engine, streams=streams, max_num_batched_tokens=100, max_num_seqs=8, max_waiting_prompts=1000)


def of_length(length: int, wish: LateInteractionParams | None = None) -> EncodedPrompt:
    return EncodedPrompt(np.arange(length, dtype=np.int32), ResolvedParams(late_interaction=wish))


def test_queries_run_before_documents_that_fit_a_batch_better():
    engine = Keeping()
    scheduler = start(engine)
    jobs = []
    for length in (1, 3):
        job = scheduler.open(1, fails_fast=True, admission=Admission())
        scheduler.add(job, [(0, of_length(length))])
        jobs.append(job)
        assert engine.is_reached.wait(5)
    for name in ("a", "b"):
        job = scheduler.open(4, fails_fast=True, admission=Admission())
        documents = [(index, of_length(3, LateInteractionParams("score_doc", name))) for index in range(1, 4)]
        scheduler.add(job, [(0, of_length(60, LateInteractionParams("cache_query", name, 3))), *documents])
        jobs.append(job)
    engine.may_go.set()
    for job in jobs:
        assert all(isinstance(outcome, PooledOutput) for outcome in job.outcomes(5))
    scheduler.close()
    assert engine.batches == [[1], [3, 60], [3, 3, 3, 60, 3, 3, 3]]


def test_a_query_is_released_when_the_server_shuts_down():
    engine = Keeping()
    scheduler = start(engine)
    admission = Admission()
    job = scheduler.open(3, fails_fast=True, admission=admission)
    scheduler.add(
        job,
        [
            (0, of_length(60, LateInteractionParams("cache_query", "a", 2))),
            *((i, of_length(60, LateInteractionParams("score_doc", "a"))) for i in (1, 2)),
        ],
    )
    assert engine.is_reached.wait(5)
    assert engine.kept == {"a"}
    closing = threading.Thread(target=scheduler.close, args=(0.01,))
    closing.start()
    assert all(isinstance(outcome, ClosedError) for outcome in job.outcomes(5))
    scheduler.end(admission)
    engine.may_go.set()
    closing.join(5)
    scheduler.close()
    assert engine.kept == set()
    assert len(engine.batches) == 1
