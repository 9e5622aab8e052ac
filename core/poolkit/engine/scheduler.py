"""Turns many callers' prompts into few forward passes, and gives every caller an outcome for every prompt.

One thread owns the engine. Each batch takes the prompt that has waited longest, then those nearest to it in length,
until the token budget or the sequence cap is reached: lengths are alike inside a batch, and nothing starves, because
the oldest prompt is always in the next batch. A query that documents are scored against inside the engine comes before
any of them, and is forgotten when its request ends, however that is. Prompts of a group run in one batch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from poolkit.contract import EncodedPrompt, Outcome, PooledOutput
from poolkit.engine.job import Admission, Job
from poolkit.engine.model import Engine
from poolkit.engine.queue import PromptQueue, Unit, make_units
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


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    job: Job
    index: int
    prompt: EncodedPrompt
    settle: Settle


class Scheduler:
    """Owns the engine's thread.

    Args:
        engine: what runs a batch.
        max_num_batched_tokens: tokens in one batch. One prompt that is longer still runs, alone.
        max_num_seqs: prompts in one batch.
        max_waiting_prompts: once so many wait, further jobs are refused; one job may be of any size.
    """

    def __init__(
        self, engine: Engine, *, max_num_batched_tokens: int, max_num_seqs: int, max_waiting_prompts: int
    ) -> None:
        self._engine = engine
        self._budget = max_num_batched_tokens
        self._max_num_seqs = max_num_seqs
        self._max_waiting_prompts = max_waiting_prompts
        # Guards everything below. A job's own lock may be held while this one is taken, never the other way round.
        self._changed = threading.Condition()
        self._queue: PromptQueue[_Item] = PromptQueue()
        self._jobs: dict[Job, Admission] = {}
        self._unused_keys: list[str] = []
        self._prompts_waiting = 0
        self._is_closed = self._has_died = False
        self._done = self._failed = self._cancelled = self._run_count = self._tokens = self._batches = 0
        self._thread = threading.Thread(target=self._loop, name="poolkit-engine", daemon=True)
        self._thread.start()

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
        with self._changed:
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
        job.future.add_done_callback(lambda _: self._forget(job))
        return job

    def add(self, job: Job, prompts: Sequence[tuple[int, EncodedPrompt]], *, settle: Settle | None = None) -> None:
        """Queue prompts of a job, each with its index: queries that are kept before the documents they are for.

        Args:
            job: is over once all its outcomes are known, or once it is cancelled: then none of its prompts run.
            prompts: each with the index under which its outcome is settled.
            settle: takes the outcomes by index, in the engine's thread; the job itself by default.
        """
        items = [_Item(job, index, prompt, settle or job.settle) for index, prompt in prompts]
        units = make_units(items)
        kept_keys = [unit.kept_key for unit in units if unit.kept_key is not None]
        with self._changed:
            admission = self._jobs.get(job)
            if admission is None:
                return  # it is over, and nothing of it may run
            admission.kept_keys += kept_keys
            self._queue.add(units)
            self._changed.notify()

    def end(self, admission: Admission) -> None:
        """Let the model forget the queries of a request that has ended: all of its jobs are over."""
        with self._changed:
            self._unused_keys += admission.kept_keys
            admission.kept_keys = []
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        """True if jobs can be run: not once the engine's thread has died."""
        return not self._has_died

    def stats(self) -> SchedulerStats:
        """Return the counts since start-up."""
        with self._changed:
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
        """Refuse new jobs, finish the open ones, stop the thread. What is not done in time fails with ClosedError."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            self._changed.wait_for(lambda: not self._jobs, timeout_s)
            late = list(self._jobs)
        for job in late:
            job.cancel(ClosedError("The model was shut down before this prompt was run."))
        self._thread.join(timeout_s)

    def _forget(self, job: Job) -> None:
        outcomes = job.future.result()
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        given_up = sum(isinstance(outcome, CancelledRequestError | ClosedError) for outcome in failed)
        with self._changed:
            self._jobs.pop(job, None)
            self._prompts_waiting -= job.size
            self._done += len(outcomes) - len(failed)
            self._failed += len(failed) - given_up
            self._cancelled += given_up
            self._changed.notify_all()

    def _loop(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            logger.critical("The engine thread died; nothing more can be run.", exc_info=error)
            with self._changed:
                self._is_closed = self._has_died = True
                stranded = list(self._jobs)
            for job in stranded:
                job.cancel(EngineError("The engine thread died; the log has the traceback."))

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._unused_keys or (self._is_closed and not self._jobs))
                units = self._queue.take(max_tokens=self._budget, max_prompts=self._max_num_seqs)
                unused_keys, self._unused_keys = self._unused_keys, []
                is_finished = not units and self._is_closed and not self._jobs
            if unused_keys:
                self._engine.release(unused_keys)
            if is_finished:
                return
            if units:
                self._run(units)
                with self._changed:
                    self._queue.finish(units)

    def _run(self, units: Sequence[Unit[_Item]]) -> None:
        """Run a batch; on failure run its halves, until the prompt or group that is to blame stands alone."""
        units = [unit for unit in units if not unit.is_over]
        batch = [item for unit in units for item in unit.items]
        if not batch:
            return
        try:
            outputs = self._engine.forward([item.prompt for item in batch])
            if len(outputs) != len(batch):
                raise EngineError(f"The engine gave {len(outputs)} outputs for {len(batch)} prompts.")
        except MemoryError as error:
            if len(units) > 1:
                self._budget = max(1, sum(unit.tokens for unit in units) // 2)
                logger.warning("Out of memory: batches are now limited to %d tokens.", self._budget)
            self._bisect(units, error)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must end at the prompt that caused it
            self._bisect(units, error)
        else:
            with self._changed:
                self._tokens += sum(unit.tokens for unit in units)
                self._batches += 1
                self._run_count += len(batch)
            for settle, outcomes in _group_by_settle(batch, outputs).items():
                settle(outcomes)

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
