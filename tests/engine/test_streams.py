"""Several streams on one queue: which batches they take, what waits for what, and what ends them."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import pytest
import torch

from poolkit import EmbeddingsRequest, LateInteractionParams, ResolvedParams
from poolkit.config import ModelConfig
from poolkit.contract import EncodedPrompt, PooledOutput
from poolkit.engine.job import Admission, Job
from poolkit.engine.scheduler import Scheduler
from poolkit.engine.streams import Streams, limit_torch_threads, usable_cores
from poolkit.errors import CancelledRequestError, EngineError
from poolkit.testing import FakeBackbone, fake_model
from poolkit.testing.fake_engine import load_fake
from poolkit_tasks.token_embed import TOKEN_EMBED


class Batch:
    """A batch that an engine was given, and holds until it may go on."""

    def __init__(self, prompts: Sequence[EncodedPrompt]) -> None:
        self.lengths = [len(prompt.token_ids) for prompt in prompts]
        self.thread = threading.current_thread()
        self.may_go = threading.Event()


class HoldingEngine:
    """A model without weights that holds every batch: the test sees which there are, and lets each go."""

    decisions = ()
    num_streams = efficient_tokens = 1

    def __init__(self) -> None:
        self.model = load_fake(TOKEN_EMBED, FakeBackbone(TOKEN_EMBED))
        self.batches: list[Batch] = []
        self.given: SimpleQueue[Batch] = SimpleQueue()
        self.all_may_go = threading.Event()
        self.error: BaseException | None = None

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        batch = Batch(prompts)
        self.batches.append(batch)
        if self.all_may_go.is_set():
            batch.may_go.set()
        self.given.put(batch)
        batch.may_go.wait()
        if self.error is not None:
            raise self.error
        return self.model.forward(prompts)

    def release(self, keys: Sequence[str]) -> None:
        self.model.release(keys)

    def close(self) -> None:
        self.model.close()

    def next(self) -> Batch:
        """Return the batch that is given next, in the order in which streams come for one."""
        return self.given.get(timeout=5)

    def let_go(self) -> None:
        """Hold no batch any more."""
        self.all_may_go.set()
        go(*self.batches)

    def next_two(self) -> list[Batch]:
        """Return two batches that run at the same time, the larger one first."""
        return sorted([self.next(), self.next()], key=lambda batch: -sum(batch.lengths))


@pytest.fixture
def engine() -> HoldingEngine:
    return HoldingEngine()


@contextmanager
def streams_of(
    engine: HoldingEngine, count: int = 2, *, efficient_tokens: int = 1, max_num_batched_tokens: int = 1000
) -> Iterator[Scheduler]:
    streams = Streams(count, None, efficient_tokens, "the test")
    scheduler = Scheduler(
        engine,
        streams=streams,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=64,
        max_waiting_prompts=1000,
    )
    try:
        yield scheduler
    finally:
        engine.let_go()
        scheduler.close()


def of_length(length: int, late: LateInteractionParams | None = None) -> EncodedPrompt:
    return EncodedPrompt(np.arange(length, dtype=np.int32), ResolvedParams(late_interaction=late))


def submit(scheduler: Scheduler, *prompts: EncodedPrompt, admission: Admission | None = None) -> Job:
    job = scheduler.open(len(prompts), fails_fast=False, admission=admission or Admission())
    scheduler.add(job, list(enumerate(prompts)))
    return job


def threads_of_engines() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("poolkit-engine")}


def go(*batches: Batch) -> None:
    for batch in batches:
        batch.may_go.set()


def test_streams_share_what_waits_and_run_it_at_the_same_time(engine):
    with streams_of(engine) as scheduler:
        job = submit(scheduler, *[of_length(10)] * 20)
        first, second = engine.next_two()
        assert [len(first.lengths), len(second.lengths)] == [10, 5]  # a half, and a half of what is left
        assert first.thread is not second.thread
        go(first)
        third = engine.next()
        assert (third.thread, len(third.lengths)) == (first.thread, 2)
        engine.let_go()
        assert all(isinstance(outcome, PooledOutput) for outcome in job.outcomes(5))


def test_no_batch_is_made_smaller_than_is_efficient(engine):
    with streams_of(engine, efficient_tokens=160) as scheduler:
        job = submit(scheduler, *[of_length(10)] * 20)
        batches = engine.next_two()
        assert [len(batch.lengths) for batch in batches] == [16, 4]
        go(*batches)
        job.outcomes(5)


def test_no_share_is_larger_than_a_batch_may_be(engine):
    with streams_of(engine, max_num_batched_tokens=50) as scheduler:
        job = submit(scheduler, *[of_length(10)] * 20)
        batches = engine.next_two()
        assert [sum(batch.lengths) for batch in batches] == [50, 50]
        engine.let_go()
        job.outcomes(5)


def test_one_stream_takes_all_that_fits(engine):
    with streams_of(engine, 1) as scheduler:
        held = submit(scheduler, of_length(1))
        batch = engine.next()
        job = submit(scheduler, *[of_length(10)] * 20)
        go(batch)
        batch = engine.next()
        assert len(batch.lengths) == 20
        go(batch)
        assert len(held.outcomes(5) + job.outcomes(5)) == 21


def test_a_short_text_does_not_wait_for_a_long_one_that_runs(engine):
    with streams_of(engine) as scheduler:
        long = submit(scheduler, of_length(900))
        running = engine.next()
        short = submit(scheduler, of_length(3))
        go(engine.next())
        assert isinstance(short.outcomes(5)[0], PooledOutput)
        assert not long.is_over
        go(running)
        long.outcomes(5)


def test_the_prompt_that_waited_longest_is_in_the_next_batch_of_whichever_stream(engine):
    with streams_of(engine) as scheduler:
        busy = [submit(scheduler, of_length(1)), submit(scheduler, of_length(1))]
        running = engine.next_two()
        odd_one = submit(scheduler, of_length(90))
        others = submit(scheduler, *[of_length(20)] * 20)
        go(running[0])
        batch = engine.next()
        assert 90 in batch.lengths
        engine.let_go()
        for job in (odd_one, others, *busy):
            job.outcomes(5)


def test_a_document_waits_while_its_query_runs_in_another_stream(engine):
    keep, score = LateInteractionParams("cache_query", "q", 2), LateInteractionParams("score_doc", "q")
    with streams_of(engine, efficient_tokens=40) as scheduler:
        asked = submit(scheduler, of_length(40, keep), of_length(30, score), of_length(31, score))
        query = engine.next()
        assert query.lengths == [40]
        other = submit(scheduler, of_length(7))
        batch = engine.next()  # of the other stream, which found no document that could run
        assert batch.lengths == [7]
        go(batch)
        other.outcomes(5)
        assert engine.given.empty()
        go(query)
        documents = engine.next_two()
        assert sorted(length for batch in documents for length in batch.lengths) == [30, 31]
        go(*documents)
        assert [outcome.data.shape for outcome in asked.outcomes(5)[1:]] == [(1,), (1,)]
        assert engine.model.queries_kept == 0


def test_a_query_that_runs_while_its_request_ends_is_forgotten(engine):
    with streams_of(engine) as scheduler:
        admission = Admission()
        job = submit(scheduler, of_length(40, LateInteractionParams("cache_query", "q", 9)), admission=admission)
        query = engine.next()
        job.cancel(CancelledRequestError("gone"))
        other = submit(scheduler, of_length(3))  # keeps the other stream at work, which must not forget it too soon
        batch = engine.next()
        scheduler.end(admission)
        go(batch)
        other.outcomes(5)
        go(query)
    assert engine.model.queries_kept == 0


def test_the_death_of_one_stream_is_that_of_the_engine(engine, caplog):
    class Died(BaseException):
        pass

    before = threads_of_engines()
    with streams_of(engine, 3) as scheduler:
        jobs = [submit(scheduler, of_length(1)), submit(scheduler, of_length(1))]
        batch, other = engine.next(), engine.next()
        waiting = scheduler.open(1, fails_fast=False, admission=Admission())
        engine.error = Died()
        go(batch)
        for job in (*jobs, waiting):
            [outcome] = job.outcomes(5)
            assert isinstance(outcome, EngineError)
            assert str(outcome) == "A thread of the engine died; the log has the traceback."
        assert not scheduler.is_alive
        engine.error = None
        go(other)
    assert threads_of_engines() == before
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL] == [
        "A thread of the engine died; nothing more can be run."
    ]


def test_closing_ends_all_streams(engine):
    before = threads_of_engines()
    with streams_of(engine, 4) as scheduler:
        job = submit(scheduler, of_length(1))
        go(engine.next())
        job.outcomes(5)
    assert threads_of_engines() == before


def test_a_stream_is_woken_only_if_it_sleeps(engine):
    """Three prompts for two streams: the third is taken by the one that is done first."""
    with streams_of(engine) as scheduler:
        jobs = [submit(scheduler, of_length(1)) for _ in range(2)]
        first, second = engine.next(), engine.next()
        jobs.append(submit(scheduler, of_length(1)))
        assert engine.given.empty()
        go(first)
        third = engine.next()
        assert third.thread is first.thread
        go(second, third)
        for job in jobs:
            job.outcomes(5)


@pytest.mark.parametrize(
    ("config", "gains_from", "expected"),
    [
        ({}, 1, "1"),
        ({"threads_per_stream": 1}, 1, "1 of 1 thread"),
        ({"threads_per_stream": 3}, 4, "4 of 3 threads"),
        ({"num_streams": 2, "threads_per_stream": 1}, 1, "2 of 1 thread"),
        ({"num_streams": 1}, 4, "1"),
        ({"num_streams": 100_000}, 1, "100000 of 1 thread"),
    ],
)
def test_the_report_says_how_many_streams_there_are(config, gains_from, expected):
    decision = Streams.resolve(ModelConfig(**config), gains_from=gains_from, efficient_tokens=1).decision
    assert decision.value == expected
    assert decision.source == ("num_streams" if "num_streams" in config else "auto: what the engine gains from")


def test_several_streams_share_the_cores():
    streams = Streams.resolve(ModelConfig(), gains_from=usable_cores(), efficient_tokens=1)
    assert (streams.count, streams.threads) == (usable_cores(), None if usable_cores() == 1 else 1)


def test_a_backbone_says_how_many_streams_it_gains_from():
    class Gaining(FakeBackbone):
        num_streams = 3

    threads: list[str] = []

    class Watching(Gaining):
        def __call__(self, batch, /):
            threads.append(threading.current_thread().name)
            return super().__call__(batch)

    with fake_model("embed", backbone=Watching, num_streams=None) as served:
        served.run("embeddings", EmbeddingsRequest(input=["a", "b"]))
        assert next(each for each in served.decisions if each.name == "streams").value.startswith("3")
    assert set(threads) <= {f"poolkit-engine-{number}" for number in range(3)}


def test_the_threads_of_torch_are_limited_in_one_thread_alone():
    before = torch.get_num_threads()
    assert in_thread(lambda: (limit_torch_threads(before + 1), torch.get_num_threads())[1]) == before + 1
    assert torch.get_num_threads() == before
    assert in_thread(torch.get_num_threads) == before


def in_thread(function: Callable[[], int]) -> int:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_threads_are_not_limited_where_nothing_has_imported_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    limit_torch_threads(1)
    assert "torch" not in sys.modules
