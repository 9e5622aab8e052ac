"""Several processes that share one listener: started, watched and stopped by this one, and counted as if they were one.

    parent ── Command.DRAIN, STOP, COUNT, the sum of all counts ──► worker
           ◄── Ready or why not, Scrape, Counts ───────────────────

A worker that ends before it is ready ends the server, with its reason. One that ends later is replaced.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, TypeAlias, cast

from poolkit.errors import PoolkitError
from poolkit.pipeline.served import ServedModel
from poolkit.server.logs import log_to_stderr
from poolkit.server.metrics import add_up, render_sum
from poolkit.server.parent import Command, Counts, Parent, Ready, Scrape
from poolkit.server.run import report_ready, run_server
from poolkit.settings.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Load", "run_workers"]

logger = logging.getLogger(__name__)

Load: TypeAlias = Callable[[], AbstractContextManager[Mapping[str, ServedModel]]]
"""Loads the models. It is pickled."""

SPARE_S = 10.0
"""The time beyond the drain's own in which a worker must have ended."""

THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""Variables that say how many threads compute: workers share the cores unless the operator has set them."""


def run_workers(load: Load, settings: Settings, listener: socket.socket) -> None:
    """Answer requests on a bound socket in `settings.workers` processes, until a signal comes; then drain them all.

    Raises PoolkitError: a worker could not start, for that reason.
    """
    _Workers(load, settings, listener).run()


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker as its parent sees it. `counts` are the last that it told."""

    index: int
    process: SpawnProcess
    link: Connection
    is_ready: bool = False
    counts: list[Metric] = field(default_factory=list)

    def send(self, message: object) -> None:
        try:
            self.link.send(message)
        except OSError:  # it has ended, which its sentinel says
            return


class _Workers:
    def __init__(self, load: Load, settings: Settings, listener: socket.socket) -> None:
        self._load = load
        self._settings = settings
        self._listener = listener
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._ended_counts: list[Metric] = []
        self._askers: list[_Worker] = []
        self._next_askers: list[_Worker] = []
        self._uncounted: set[_Worker] = set()
        self._failure: PoolkitError | None = None
        self._is_told = self._is_stopping = False
        self._deadline: float | None = None
        self._woken, self._wake = self._context.Pipe(duplex=False)

    def run(self) -> None:
        with self._handled_signals():
            for index in range(self._settings.workers):
                self._start(index)
            while self._workers:
                self._wait()
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def _handled_signals(self) -> Iterator[None]:
        """Wake the loop for each signal: what a signal interrupts must not be what handles it."""
        before = {
            number: signal.signal(number, lambda *_: self._wake.send(None))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, index: int) -> None:
        link, its_link = self._context.Pipe()
        arguments = (index, self._load, self._settings, self._listener, its_link)
        process = self._context.Process(target=_work, args=arguments, name=f"poolkit-worker-{index}", daemon=True)
        with _environment_of_worker(self._settings.workers):
            process.start()
        its_link.close()
        self._workers.append(_Worker(index, process, link))

    def _wait(self) -> None:
        """Handle what happens next."""
        timeout_s = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        watched = [self._woken, *(worker.link for worker in self._workers)]
        happened = wait(watched, timeout_s)
        if not happened:
            for worker in self._workers:
                logger.error("Worker %d has not ended in time and is killed.", worker.index)
                worker.process.kill()
            self._deadline = None
        if self._woken in happened:
            self._woken.recv()
            self._stop()
        for worker in [worker for worker in self._workers if worker.link in happened]:
            try:
                message = worker.link.recv()
            except (EOFError, OSError):
                self._end(worker)
            else:
                self._handle(worker, message)

    def _handle(self, worker: _Worker, message: object) -> None:
        match message:
            case Ready():
                worker.is_ready = True
                if self._is_stopping:
                    worker.send(Command.DRAIN)
                elif not self._is_told and all(worker.is_ready for worker in self._workers):
                    self._is_told = True
                    report_ready(message, self._settings, self._listener)
            case Scrape():
                self._next_askers.append(worker)
                self._begin_count()
            case Counts():
                worker.counts = cast("list[Metric]", list(message))
                self._uncounted.discard(worker)
                self._end_count()
            case PoolkitError():
                self._failure = self._failure or message

    def _begin_count(self) -> None:
        """Ask all for their counts, unless they are being asked: whoever asks meanwhile wants newer ones."""
        if self._askers or not self._next_askers:
            return
        self._askers, self._next_askers = self._next_askers, []
        self._uncounted = {worker for worker in self._workers if worker.is_ready}
        for worker in self._uncounted:
            worker.send(Command.COUNT)

    def _end_count(self) -> None:
        if not self._askers or self._uncounted:
            return
        text = render_sum([self._ended_counts, *(worker.counts for worker in self._workers)])
        askers, self._askers = self._askers, []
        for worker in askers:
            worker.send(text)
        self._begin_count()

    def _end(self, worker: _Worker) -> None:
        """Replace a worker that has ended, or stop the others."""
        worker.link.close()
        worker.process.join()
        self._workers.remove(worker)
        self._ended_counts = add_up([self._ended_counts, worker.counts], only_counts=True)
        if not self._is_stopping and worker.is_ready:
            logger.error("Worker %d ended (exit code %s). Starting another.", worker.index, worker.process.exitcode)
            self._start(worker.index)
        elif not self._is_stopping:
            self._failure = self._failure or PoolkitError(
                f"Worker {worker.index} ended before it was ready (exit code {worker.process.exitcode}). Its log says "
                "why; without one, it was killed, which happens where the memory does not hold so many workers."
            )
            self._stop()
        self._uncounted.discard(worker)
        self._askers = [asker for asker in self._askers if asker is not worker]
        self._end_count()

    def _stop(self) -> None:
        """Drain all workers; stop them at once the second time. Those that are not ready have nothing to finish."""
        command = Command.STOP if self._is_stopping else Command.DRAIN
        self._is_stopping = True
        if self._failure is None and self._is_told:
            logger.info("Shutting down %d workers.", len(self._workers))
        self._deadline = time.monotonic() + self._settings.drain_timeout_s + SPARE_S
        for worker in self._workers:
            if worker.is_ready:
                worker.send(command)
            else:
                worker.process.kill()


@contextmanager
def _environment_of_worker(workers: int) -> Iterator[None]:
    """Let a process that is started share the cores with the others, and not be interrupted: its parent tells it."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    added = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, threads))
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name in added:
            del os.environ[name]


def _work(index: int, load: Load, settings: Settings, listener: socket.socket, link: Connection) -> None:
    """Serve in this process. The first worker alone says what was decided: it is the same in all."""
    log_to_stderr(logging.INFO if index == 0 else logging.WARNING)
    parent = Parent(link)
    try:
        with load() as models:
            run_server(models, settings, listener, parent=parent)
    except PoolkitError as error:
        parent.fail(error)
        raise SystemExit(1) from None
