"""The scheduler: batching, fairness, isolation, cancellation, shut-down."""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from poolkit.contract import EncodedPrompt, Group, PooledOutput, ResolvedParams
from poolkit.engine.job import Admission, Job
from poolkit.engine.scheduler import Scheduler
from poolkit.engine.streams import Streams
from poolkit.errors import CancelledRequestError, ClosedError, EngineError, OverloadedError
from poolkit.testing import FakeBackbone
from poolkit.testing.fake_engine import load_fake
from poolkit_tasks.embed import EMBED

POISON = 999


class RecordingEngine:
    """A model without weights that records the batches it is given; holds each one until `gate` opens."""

    decisions = ()
    num_streams = efficient_tokens = 1

    def __init__(self, *, memory_tokens: int | None = None) -> None:
        backbone = FakeBackbone(EMBED, fails_on=lambda prompt: POISON in prompt.token_ids)
        self.model = load_fake(EMBED, backbone)
        self.memory_tokens = memory_tokens
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_running = threading.Event()

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        self.is_running.set()
        self.gate.wait()
        lengths = [len(prompt.token_ids) for prompt in prompts]
        self.batches.append(lengths)
        if self.memory_tokens is not None and sum(lengths) > self.memory_tokens:
            raise MemoryError
        return self.model.forward(prompts)

    def release(self, keys: Sequence[str]) -> None:
        self.model.release(keys)

    def close(self) -> None:
        self.model.close()


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def scheduler(engine: RecordingEngine) -> Iterator[Scheduler]:
    scheduler = start(engine)
    yield scheduler
    engine.gate.set()
    scheduler.close()


def start(engine: RecordingEngine, *, streams: int = 1, efficient_tokens: int = 1, **limits: int) -> Scheduler:
    settings = {"max_num_batched_tokens": 100, "max_num_seqs": 8, "max_waiting_prompts": 1000, **limits}
    return Scheduler(engine, streams=Streams(streams, None, efficient_tokens, "the test"), **settings)


def prompt(*token_ids: int) -> EncodedPrompt:
    return EncodedPrompt(np.array(token_ids, np.int32), ResolvedParams())


def of_length(length: int) -> EncodedPrompt:
    return prompt(*range(length))


def submit(scheduler: Scheduler, prompts: Sequence[EncodedPrompt], *, fails_fast: bool = False) -> Job:
    job = scheduler.open(len(prompts), fails_fast=fails_fast, admission=Admission())
    scheduler.add(job, list(enumerate(prompts)))
    return job


def hold_a_batch(scheduler: Scheduler, engine: RecordingEngine) -> Job:
    """Occupy the engine with one prompt until the gate opens, so that what follows waits together."""
    engine.gate.clear()
    engine.is_running.clear()
    job = submit(scheduler, [of_length(1)])
    assert engine.is_running.wait(5)
    return job


def data_of(outcomes: Sequence[object]) -> list[NDArray[np.float32]]:
    assert all(isinstance(outcome, PooledOutput) for outcome in outcomes)
    return [outcome.data for outcome in outcomes if isinstance(outcome, PooledOutput)]


def test_outcomes_come_back_in_prompt_order_whatever_the_batches(scheduler):
    prompts = [of_length(length) for length in (30, 2, 29, 3, 28, 1, 27, 5, 26, 7, 25)]
    outcomes = submit(scheduler, prompts).outcomes(5)
    expected = load_fake(EMBED, FakeBackbone(EMBED)).forward(prompts)
    for got, want in zip(data_of(outcomes), expected, strict=True):
        np.testing.assert_array_equal(got, want.data)
    assert [list(outcome.prompt_token_ids) for outcome in outcomes] == [list(p.token_ids) for p in prompts]


def test_a_batch_keeps_the_token_budget_and_the_sequence_cap(scheduler, engine):
    hold_a_batch(scheduler, engine)
    job = submit(scheduler, [of_length(40)] * 5 + [of_length(2)] * 20)
    engine.gate.set()
    job.outcomes(5)
    assert all(sum(batch) <= 100 and len(batch) <= 8 for batch in engine.batches)
    assert sum(len(batch) for batch in engine.batches) == 26


def test_lengths_are_alike_inside_a_batch(scheduler, engine):
    hold_a_batch(scheduler, engine)
    job = submit(scheduler, [of_length(length) for length in (5, 90, 5, 90, 5, 90)])
    engine.gate.set()
    job.outcomes(5)
    assert engine.batches[1:] == [[5, 5, 5], [90], [90], [90]]


def test_the_prompt_that_waited_longest_is_always_in_the_next_batch(scheduler, engine):
    hold_a_batch(scheduler, engine)
    odd_one = submit(scheduler, [of_length(90)])
    others = submit(scheduler, [of_length(20)] * 50)
    engine.gate.set()
    odd_one.outcomes(5)
    others.outcomes(5)
    assert engine.batches[1] == [90]


def test_a_prompt_longer_than_the_budget_runs_alone(scheduler):
    [outcome] = submit(scheduler, [of_length(150)]).outcomes(5)
    assert isinstance(outcome, PooledOutput)


def test_a_poisoned_prompt_fails_alone(scheduler, engine, caplog):
    hold_a_batch(scheduler, engine)
    good = submit(scheduler, [of_length(3), of_length(4)])
    bad = submit(scheduler, [of_length(3), prompt(5, POISON, 5), of_length(2)])
    engine.gate.set()
    assert len(data_of(good.outcomes(5))) == 2
    first, failure, third = bad.outcomes(5)
    assert len(data_of([first, third])) == 2
    assert isinstance(failure, EngineError)
    assert str(failure) == (
        "The forward pass failed on a prompt of 3 tokens: RuntimeError. "
        "Other prompts are not affected; the log has the traceback."
    )
    assert isinstance(failure.__cause__, RuntimeError)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_job_that_fails_fast_does_not_wait_for_its_other_prompts(scheduler, engine):
    job = scheduler.open(2, fails_fast=True, admission=Admission())
    failure = ValueError("bad prompt")
    job.settle([(1, failure)])
    assert job.outcomes(5) == [failure, failure]
    scheduler.add(job, [(0, of_length(3))])
    assert submit(scheduler, [of_length(4)]).outcomes(5)
    assert engine.batches == [[4]]


def test_out_of_memory_halves_the_budget_and_retries(caplog):
    engine = RecordingEngine(memory_tokens=40)
    scheduler = start(engine)
    hold_a_batch(scheduler, engine)
    job = submit(scheduler, [of_length(10)] * 16)
    engine.gate.set()
    outcomes = job.outcomes(5)
    again = submit(scheduler, [of_length(10)] * 8).outcomes(5)
    scheduler.close()
    assert len(data_of(outcomes)) == 16
    assert len(data_of(again)) == 8
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory: batches are now limited to 40 tokens."
    ]


def test_a_group_that_does_not_fit_fails_as_one_and_is_never_halved(caplog):
    engine = RecordingEngine(memory_tokens=25)
    scheduler = start(engine)
    hold_a_batch(scheduler, engine)
    group = Group()
    job = submit(scheduler, [*(replace(of_length(10), group=group) for _ in range(3)), of_length(20)])
    engine.gate.set()
    *failures, fitting = job.outcomes(5)
    scheduler.close()
    assert {str(failure) for failure in failures} == {
        "The forward pass failed on 3 prompts of a group: MemoryError. Other prompts are not affected; the log has the "
        "traceback."
    }
    assert len(data_of([fitting])) == 1
    assert engine.batches == [[1], [10, 10, 10, 20], [10, 10, 10], [20]]
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory: batches are now limited to 25 tokens.",
        "The forward pass failed on 3 prompts of a group.",
    ]


def test_a_cancelled_job_frees_its_place(scheduler, engine):
    hold_a_batch(scheduler, engine)
    given_up = submit(scheduler, [of_length(7)] * 3)
    kept = submit(scheduler, [of_length(5)])
    assert given_up.cancel(CancelledRequestError("gone")) == 3
    assert scheduler.stats().prompts_waiting == 2
    engine.gate.set()
    kept.outcomes(5)
    assert engine.batches == [[1], [5]]
    assert all(str(outcome) == "gone" for outcome in given_up.outcomes(0))
    stats = scheduler.stats()
    assert (stats.prompts_done, stats.prompts_cancelled, stats.prompts_waiting) == (2, 3, 0)


def test_too_many_waiting_prompts_refuse_the_next_job_whatever_its_size():
    engine = RecordingEngine()
    scheduler = start(engine, max_waiting_prompts=10)
    hold_a_batch(scheduler, engine)
    large = submit(scheduler, [of_length(2)] * 50)
    with pytest.raises(OverloadedError) as refusal:
        scheduler.open(1, fails_fast=True, admission=Admission())
    engine.gate.set()
    assert len(data_of(large.outcomes(5))) == 50
    assert len(data_of(submit(scheduler, [of_length(2)]).outcomes(5))) == 1
    scheduler.close()
    assert str(refusal.value) == "51 prompts are waiting already and at most 10 may. Try again in 1 s."
    assert refusal.value.retry_after_s == 1


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(engine):
    scheduler = start(engine)
    hold_a_batch(scheduler, engine)
    accepted = submit(scheduler, [of_length(3)] * 20)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    engine.gate.set()
    closing.join(5)
    assert len(data_of(accepted.outcomes(0))) == 20
    with pytest.raises(ClosedError, match=r"^The model is shutting down and accepts nothing more\.$"):
        scheduler.open(1, fails_fast=False, admission=Admission())


def test_what_is_not_done_in_time_fails_when_closing(engine):
    scheduler = start(engine)
    held = hold_a_batch(scheduler, engine)
    waiting = submit(scheduler, [of_length(3)])
    scheduler.close(timeout_s=0.01)
    assert [str(outcome) for outcome in (*held.outcomes(0), *waiting.outcomes(0))] == [
        "The model was shut down before this prompt was run."
    ] * 2
    engine.gate.set()


def test_an_engine_that_gives_too_few_outputs_fails_its_prompts_and_goes_on():
    class Short(RecordingEngine):
        def forward(self, prompts):
            return super().forward(prompts)[:-1]

    engine = Short()
    scheduler = start(engine)
    [outcome] = submit(scheduler, [of_length(3)]).outcomes(5)
    scheduler.close()
    assert str(outcome) == "The engine gave 0 outputs for 1 prompts."


def test_an_empty_job_is_done_at_once(scheduler):
    assert submit(scheduler, []).outcomes(0) == []


def test_many_threads_each_get_their_own_outcome(scheduler):
    answers: dict[int, NDArray[np.float32]] = {}

    def ask(number: int) -> None:
        [outcome] = submit(scheduler, [prompt(number, number % 7, number)]).outcomes(10)
        answers[number] = outcome.data

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(200):
        [expected] = load_fake(EMBED, FakeBackbone(EMBED)).forward([prompt(number, number % 7, number)])
        np.testing.assert_array_equal(answers[number], expected.data)
