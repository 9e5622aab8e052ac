"""Turns many callers' prompts into few forward passes, and gives every caller an outcome for every prompt.

Threads of its own, the streams, run the engine; each takes its batches from the queue by itself. A batch takes the
prompt that has waited longest, then those nearest to it in length, until it has its share of the waiting tokens, or the
token budget or the sequence cap is reached: lengths are alike inside a batch, and nothing starves, because the oldest
prompt is always in the next batch. A query that documents are scored against inside the engine comes before any of
them, and is forgotten when its request ends, however that is. Prompts of a group run in one batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from poolkit.contract import EncodedPrompt, Outcome, PooledOutput
from poolkit.engine.job import Admission, Job
from poolkit.engine.model import Engine
from poolkit.engine.queue import PromptQueue, Unit, make_units
from poolkit.engine.stages import Stage, Stages
from poolkit.engine.streams import Streams, limit_torch_threads
from poolkit.errors import CancelledRequestError, ClosedError, EngineError, OverloadedError

__all__ = ["Scheduler", "SchedulerStats"]

logger = logging.getLogger(__name__)

Settle: TypeAlias = Callable[[Sequence[tuple[int, Outcome]]], object]
"""Takes outcomes by index."""

RETRY_AFTER_S = 1
"""The wait that a refused caller is told: about the time of a full batch on a slow machine."""


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Counts since start-up, but for `prompts_waiting`, which is now. `prompts_run` went through the model."""

    prompts_waiting: int
    prompts_done: int
    prompts_failed: int
    prompts_cancelled: int
    prompts_run: int
    tokens_done: int
    batches_done: int


@dataclass(slots=True, eq=False)
class _Item:
    job: Job
    index: int
    prompt: EncodedPrompt
    settle: Settle
    added_at: float


class _Stream:
    """A thread that runs batches.

    Attributes:
        units: those that it runs now.
        thread: runs it.
    """

    def __init__(self, number: int, run: Callable[[_Stream], None]) -> None:
        self.units: Sequence[Unit[_Item]] = ()
        self._asleep = threading.Lock()  # held, but for the moment in which the stream is woken
        self._asleep.acquire()
        self.thread = threading.Thread(target=run, args=(self,), name=f"poolkit-engine-{number}", daemon=True)

    def sleep(self) -> None:
        """Wait in the stream's own thread until it is woken, once it stands among the idle ones."""
        self._asleep.acquire()

    def wake(self) -> None:
        """Wake the stream, which was taken from among the idle ones."""
        self._asleep.release()


class Scheduler:
    """Owns the engine's threads.

    Args:
        engine: what runs a batch.
        streams: the threads.
        max_num_batched_tokens: tokens in one batch. One prompt that is longer still runs, alone.
        max_num_seqs: prompts in one batch.
        max_waiting_prompts: once so many wait, further jobs are refused; one job may be of any size.
        stages: is told how long prompts wait and how long the forward passes take.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        streams: Streams,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        max_waiting_prompts: int,
        stages: Stages | None = None,
    ) -> None:
        self._engine = engine
        self._stages = stages or Stages()
        self._efficient_tokens = streams.efficient_tokens
        self._threads_per_stream = streams.threads
        self._budget = max_num_batched_tokens
        self._max_num_seqs = max_num_seqs
        self._max_waiting_prompts = max_waiting_prompts
        # Guards everything below. No other lock is taken while it is held.
        self._lock = threading.Lock()
        self._drained = threading.Event()  # once it is closed and no job is open
        self._queue: PromptQueue[_Item] = PromptQueue()
        self._jobs: dict[Job, Admission] = {}
        self._unused_keys: set[str] = set()  # of queries that run for a request that has ended
        self._prompts_waiting = 0
        self._is_closed = self._has_died = False
        self._done = self._failed = self._cancelled = self._run_count = self._tokens = self._batches = 0
        self._streams = [_Stream(number, self._loop) for number in range(streams.count)]
        self._idle: list[_Stream] = []
        for stream in self._streams:
            stream.thread.start()

    def open(self, size: int, *, fails_fast: bool, admission: Admission) -> Job:
        """Admit a job of `size` prompts, each of which is then handed to `add` or settled by the caller.

        A job without prompts is over at once, however many others wait.

        Args:
            size: the number of prompts.
            fails_fast: give up the others when one fails.
            admission: of the request that the job belongs to; one that was admitted before is not refused any more.

        Raises:
            OverloadedError: too many prompts wait already.
            ClosedError: the scheduler is shutting down.
        """
        job = Job(size, fails_fast=fails_fast)
        with self._lock:
            if self._is_closed:
                raise ClosedError("The model is shutting down and accepts nothing more.")
            if self._prompts_waiting >= self._max_waiting_prompts and size > 0 and not admission.is_granted:
                raise OverloadedError(
                    f"{self._prompts_waiting} prompts are waiting already and at most {self._max_waiting_prompts} may. "
                    f"Try again in {RETRY_AFTER_S} s.",
                    retry_after_s=RETRY_AFTER_S,
                )
            admission.is_granted = True
            self._jobs[job] = admission
            self._prompts_waiting += size
        job.add_done_callback(partial(self._forget, job))
        return job

    def add(self, job: Job, prompts: Sequence[tuple[int, EncodedPrompt]], *, settle: Settle | None = None) -> None:
        """Queue prompts of a job, each with its index: queries that are kept before the documents they are for.

        Args:
            job: is over once all its outcomes are known, or once it is cancelled: then none of its prompts run.
            prompts: each with the index under which its outcome is settled.
            settle: takes the outcomes by index, in a stream's thread; the job itself by default.
        """
        settle, now = settle or job.settle, time.perf_counter()
        units = make_units([_Item(job, index, prompt, settle, now) for index, prompt in prompts])
        kept_keys = [unit.kept_key for unit in units if unit.kept_key is not None]
        with self._lock:
            admission = self._jobs.get(job)
            if admission is None:
                return  # it is over, and nothing of it may run
            admission.kept_keys += kept_keys
            self._queue.add(units)
            woken = self._idle.pop() if self._idle and self._queue else None
        if woken is not None:
            woken.wake()

    def end(self, admission: Admission) -> None:
        """Let the model forget the queries of a request that has ended: all of its jobs are over."""
        keys, admission.kept_keys = set(admission.kept_keys), []
        with self._lock:
            running = self._running_keys() & keys
            self._unused_keys |= running
        self._engine.release(list(keys - running))

    @property
    def is_alive(self) -> bool:
        """True if jobs can be run: not once a thread of the engine has died."""
        return not self._has_died

    def stats(self) -> SchedulerStats:
        """Return the counts since start-up."""
        with self._lock:
            return SchedulerStats(
                prompts_waiting=self._prompts_waiting,
                prompts_done=self._done,
                prompts_failed=self._failed,
                prompts_cancelled=self._cancelled,
                prompts_run=self._run_count,
                tokens_done=self._tokens,
                batches_done=self._batches,
            )

    def close(self, timeout_s: float | None = None) -> None:
        """Refuse new jobs, finish the open ones, stop the threads. What is not done in time fails with ClosedError."""
        with self._lock:
            self._is_closed = True
            if not self._jobs:
                self._drained.set()
        self._drained.wait(timeout_s)
        with self._lock:
            late = list(self._jobs)
        for job in late:
            job.cancel(ClosedError("The model was shut down before this prompt was run."))
        self._wake_all()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for stream in self._streams:
            stream.thread.join(None if deadline is None else max(0, deadline - time.monotonic()))

    def _forget(self, job: Job) -> None:
        failed = job.failures
        given_up = sum(isinstance(outcome, CancelledRequestError | ClosedError) for outcome in failed)
        with self._lock:
            self._jobs.pop(job, None)
            self._prompts_waiting -= job.size
            self._done += job.size - len(failed)
            self._failed += len(failed) - given_up
            self._cancelled += given_up
            if self._is_closed and not self._jobs:
                self._drained.set()

    def _loop(self, stream: _Stream) -> None:
        try:
            if self._threads_per_stream is not None:
                limit_torch_threads(self._threads_per_stream)
            while units := self._next(stream):
                self._run(units)
        except BaseException as error:
            logger.critical("A thread of the engine died; nothing more can be run.", exc_info=error)
            with self._lock:
                self._is_closed = self._has_died = True
                stranded = list(self._jobs)
            for job in stranded:
                job.cancel(EngineError("A thread of the engine died; the log has the traceback."))
            self._wake_all()

    def _next(self, stream: _Stream) -> Sequence[Unit[_Item]]:
        """Return the next batch of a stream that is done with its last one; wait until there is one.

        Nothing at the end. Another stream is woken where something is left.
        """
        while True:
            with self._lock:
                unused_keys = self._finish(stream)
                units = stream.units = self._queue.take(max_tokens=self._share(), max_prompts=self._max_num_seqs)
                is_over = self._has_died or (self._is_closed and not self._jobs)
                is_idle = not units and not is_over
                woken = self._idle.pop() if self._idle and self._queue else None
                if is_idle:
                    self._idle.append(stream)
            if unused_keys:
                self._engine.release(unused_keys)
            if woken is not None:
                woken.wake()
            if not is_idle:
                now = time.perf_counter()
                self._stages.add(Stage.QUEUE, sum(now - item.added_at for unit in units for item in unit.items))
                return units
            stream.sleep()

    def _share(self) -> int:
        """Return the tokens of the next batch: so many for each stream, and no fewer than are efficient."""
        each = -(-self._queue.tokens // len(self._streams))
        return min(self._budget, max(each, self._efficient_tokens))

    def _finish(self, stream: _Stream) -> list[str]:
        """Let the documents go whose query a stream has run; return which queries nobody wants any more."""
        if not stream.units:
            return []
        self._queue.finish(stream.units)
        stream.units = ()
        if not self._unused_keys:
            return []
        running = self._running_keys()
        unused, self._unused_keys = self._unused_keys - running, self._unused_keys & running
        return list(unused)

    def _running_keys(self) -> set[str]:
        keys = (unit.kept_key for stream in self._streams for unit in stream.units)
        return {key for key in keys if key is not None}

    def _wake_all(self) -> None:
        with self._lock:
            woken, self._idle = self._idle, []
        for stream in woken:
            stream.wake()

    def _run(self, units: Sequence[Unit[_Item]]) -> None:
        """Run a batch; on failure run its halves, until the prompt or group that is to blame stands alone."""
        units = [unit for unit in units if not unit.is_over]
        batch = [item for unit in units for item in unit.items]
        if not batch:
            return
        started = time.perf_counter()
        try:
            outputs = self._engine.forward([item.prompt for item in batch])
            self._stages.add(Stage.FORWARD, time.perf_counter() - started)
            if len(outputs) != len(batch):
                raise EngineError(f"The engine gave {len(outputs)} outputs for {len(batch)} prompts.")
        except MemoryError as error:
            if len(units) > 1:
                self._limit_budget(max(1, sum(unit.tokens for unit in units) // 2))
            self._bisect(units, error)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must end at the prompt that caused it
            self._bisect(units, error)
        else:
            tokens = sum(unit.tokens for unit in units)
            with self._lock:
                self._tokens += tokens
                self._batches += 1
                self._run_count += len(batch)
            for settle, outcomes in _group_by_settle(batch, outputs).items():
                settle(outcomes)

    def _limit_budget(self, tokens: int) -> None:
        with self._lock:
            is_less = tokens < self._budget  # not where another stream has run out of memory too
            self._budget = min(self._budget, tokens)
        if is_less:
            logger.warning("Out of memory: batches are now limited to %d tokens.", tokens)

    def _bisect(self, units: Sequence[Unit[_Item]], error: Exception) -> None:
        if len(units) > 1:
            middle = len(units) // 2
            self._run(units[:middle])
            self._run(units[middle:])
            return
        [unit] = units
        if not isinstance(error, EngineError):
            whom = (
                f"a prompt of {unit.tokens} tokens" if len(unit.items) == 1 else f"{len(unit.items)} prompts of a group"
            )
            logger.error("The forward pass failed on %s.", whom, exc_info=error)
            failure = EngineError(
                f"The forward pass failed on {whom}: {type(error).__name__}. "
                "Other prompts are not affected; the log has the traceback."
            )
            failure.__cause__ = error
            error = failure
        unit.items[0].settle([(item.index, error) for item in unit.items])


def _group_by_settle(
    batch: Sequence[_Item], outputs: Sequence[PooledOutput]
) -> dict[Settle, list[tuple[int, Outcome]]]:
    """Return each job's share of a batch, so that a job's lock is taken once a batch."""
    by_settle: dict[Settle, list[tuple[int, Outcome]]] = {}
    for item, output in zip(batch, outputs, strict=True):
        by_settle.setdefault(item.settle, []).append((item.index, output))
    return by_settle
