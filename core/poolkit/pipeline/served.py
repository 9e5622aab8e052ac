"""One served model: the pipeline that offline calls and HTTP requests share.

    request ─► pre_process ─► prompts ─► tokenize ─► scheduler ─► engine ─► post_process ─► response

Blocking work runs in thread pools: one for tokenization, and one for each operation's hooks and JSON, so that neither
holds up the other and an operation with a slow plugin holds up only itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from functools import partial
from typing import TypeVar

from pydantic import BaseModel

from poolkit.config import MAX_WAITING_PROMPTS, ModelConfig, PluginConfig
from poolkit.contract import (
    EncodedPrompt,
    Engine,
    ImagePrompt,
    PooledOutput,
    PoolingParams,
    PoolingTask,
    Prepared,
    Prompt,
)
from poolkit.engine.job import Job, Outcome
from poolkit.engine.scheduler import Scheduler, SchedulerStats
from poolkit.errors import BatchError, CancelledRequestError, RequestError
from poolkit.models import Decision, ModelInfo
from poolkit.pipeline import prepare_model, report, report_quarantined
from poolkit.pipeline.params import check_params
from poolkit.registry import BoundOperation, BoundTask, Registry
from poolkit.tokenization import Encoder, Readings

__all__ = ["ServedModel", "load_model"]

T = TypeVar("T")

TOKENIZE_CHUNK = 256
"""Prompts tokenized at a time: few enough that the engine starts soon, enough that the tokenizer's threads pay."""

IMAGE_CHUNK = 8
"""Images prepared at a time."""
IMAGES_AHEAD = 64
"""Images of one request that wait for the engine: prepared, each is about a megabyte."""

PROGRESS_INTERVAL_S = 0.1


class ServedModel:
    """A loaded model with its one task. Thread safe.

    Attributes:
        name: the model as the user named it.
        info: what its files say.
        task: the task it serves.
        operations: what it can be asked, by name.
        registry: the enabled plugins, among which the task was found.
        decisions: the start-up report.
    """

    def __init__(
        self,
        *,
        info: ModelInfo,
        task: BoundTask,
        registry: Registry,
        encoder: Encoder,
        engine: Engine,
        config: ModelConfig,
        max_waiting_prompts: int = MAX_WAITING_PROMPTS,
    ) -> None:
        self.name = info.name
        self.info = info
        self.task: PoolingTask = task.task
        self.registry = registry
        self.operations: Mapping[str, BoundOperation] = task.operations
        self.decisions: tuple[Decision, ...] = (
            *report(info, task.task, config),
            *engine.decisions,
            *report_quarantined(registry),
        )
        self._bound = task
        self._engine = engine
        self._encoder = encoder
        self._scheduler = Scheduler(
            engine,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_seqs=config.max_num_seqs,
            max_waiting_prompts=max_waiting_prompts,
        )
        cpus = os.cpu_count() or 1
        self._tokenizer_pool = ThreadPoolExecutor(max(1, cpus // 2), thread_name_prefix="poolkit-tokenize")
        self._image_workers = max(1, cpus // 2)
        self._image_pool = (
            ThreadPoolExecutor(self._image_workers, thread_name_prefix="poolkit-images") if info.images else None
        )
        self._io_pools = {
            operation: ThreadPoolExecutor(cpus + 4, thread_name_prefix=f"poolkit-{operation}")
            for operation in self.operations
        }

    def run(
        self, operation: str, request: BaseModel, *, on_progress: Callable[[int, int], None] | None = None
    ) -> BaseModel:
        """Return the response to a request, blocking until it is there.

        Args:
            operation: one of `operations`.
            request: of the operation's request type.
            on_progress: called now and then, in the calling thread, with the numbers of prompts done and in all.

        Raises:
            RequestError: the input is wrong.
            BatchError: some of several prompts failed; it carries the outputs of the others.
            HookError: a plugin failed.
            EngineError: the model failed on the only prompt.
        """
        bound = self.operations[operation]
        prepared = bound.pre_process(request)
        job = self._start(prepared, fails_fast=not prepared.outputs_map_to_inputs)
        try:
            while not job.is_over:
                wait_for_futures([job.future], timeout=PROGRESS_INTERVAL_S)
                if on_progress is not None:
                    on_progress(job.done, job.size)
        except BaseException:
            job.cancel(CancelledRequestError("The caller gave up."))
            raise
        outcomes = job.future.result()
        failures = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, Exception)}
        if failures and len(outcomes) > 1 and prepared.outputs_map_to_inputs:
            raise BatchError(failures, [None if i in failures else outcome for i, outcome in enumerate(outcomes)])
        return bound.post_process(prepared, _outputs(outcomes))

    async def arun(self, operation: str, decode: Callable[[], BaseModel], encode: Callable[[BaseModel], T]) -> T:
        """Return `encode(response)` to the request that `decode` makes. Both run in a worker thread.

        Cancelling the awaiting task gives up the prompts that have not run yet.

        Raises:
            RequestError: the input is wrong, or `decode` says so; with several bad prompts, the first one's error.
            OverloadedError: too much is waiting already.
            HookError: a plugin failed.
            EngineError: the model failed.
        """
        bound = self.operations[operation]
        io_pool = self._io_pools[operation]
        loop = asyncio.get_running_loop()
        jobs: list[Job] = []
        is_cancelled = False

        def start() -> tuple[Prepared, Job]:
            prepared = bound.pre_process(decode())
            job = self._start(prepared, fails_fast=True)
            jobs.append(job)
            if is_cancelled:
                job.cancel(CancelledRequestError("The client went away."))
            return prepared, job

        try:
            prepared, job = await loop.run_in_executor(io_pool, start)
            outcomes = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            is_cancelled = True
            for job in jobs:
                job.cancel(CancelledRequestError("The client went away."))
            raise
        return await loop.run_in_executor(io_pool, lambda: encode(bound.post_process(prepared, _outputs(outcomes))))

    @property
    def is_alive(self) -> bool:
        """Whether prompts can be run: not once the engine's thread has died."""
        return self._scheduler.is_alive

    def stats(self) -> SchedulerStats:
        """Return the counts since start-up."""
        return self._scheduler.stats()

    def close(self, timeout_s: float | None = None) -> None:
        """Refuse new work, finish what was accepted within `timeout_s`, and release the model."""
        self._scheduler.close(timeout_s)
        self._tokenizer_pool.shutdown(cancel_futures=True)
        if self._image_pool is not None:
            self._image_pool.shutdown(cancel_futures=True)
        for io_pool in self._io_pools.values():
            io_pool.shutdown(cancel_futures=True)
        self._bound.close()
        self._engine.close()

    def _start(self, prepared: Prepared, *, fails_fast: bool) -> Job:
        """Send the prompts on their way: each chunk goes to the engine as soon as it is tokenized.

        Queries that are kept for documents stand last. They are tokenized first, and here, so that none comes too late.
        So are texts that stand in several pairs, so that each is tokenized once.
        """
        prompts = tuple(prepared.prompts)  # a processor that changes its list later on changes nothing here
        params = prepared.params_of_each
        check_params(params, task=self.task, model=self.info)
        size = len(prompts)
        known = self._encoder.read_shared(prompts, params)
        job = self._scheduler.open(size, fails_fast=fails_fast)
        others = size - sum(
            one.late_interaction is not None and one.late_interaction.mode == "cache_query" for one in params
        )
        tokenize = partial(self._tokenize, job, prompts, params, known)
        if others < size:
            tokenize(others, size)
        if self._image_pool is not None and any(isinstance(prompt, ImagePrompt) for prompt in prompts[:others]):
            starts = iter(range(0, others, IMAGE_CHUNK))
            for _ in range(self._image_workers):
                self._image_pool.submit(_read_images, self._image_pool, job, tokenize, starts, others)
            return job
        for start in range(0, others, TOKENIZE_CHUNK):
            self._tokenizer_pool.submit(tokenize, start, min(start + TOKENIZE_CHUNK, others))
        return job

    def _tokenize(
        self,
        job: Job,
        prompts: Sequence[Prompt],
        params: Sequence[PoolingParams],
        known: Readings,
        start: int,
        stop: int,
    ) -> None:
        if job.is_over:
            return
        chunk = slice(start, stop)
        encoded: Sequence[EncodedPrompt | Exception]
        try:
            encoded = self._encoder.encode(prompts[chunk], params[chunk], first_index=start, known=known)
        except Exception as error:  # noqa: BLE001 - the job must be told whatever happens in this thread
            encoded = [error] * len(params[chunk])
        ready: list[tuple[int, EncodedPrompt]] = []
        refused: list[tuple[int, Outcome]] = []
        for index, prompt in enumerate(encoded, start):
            if isinstance(prompt, Exception):
                refused.append((index, prompt))
            else:
                ready.append((index, prompt))
        job.settle(refused)
        self._scheduler.add(job, ready)


def _read_images(
    pool: ThreadPoolExecutor, job: Job, tokenize: Callable[[int, int], None], starts: Iterator[int], size: int
) -> None:
    """Encode the next chunk of a request with images once few of them wait, then stand in line for another.

    So the images of a large request do not fill the memory, nor hold up those of a small one.
    """
    start = next(starts, None)
    if start is None:
        return
    job.wait_until_done(start - IMAGES_AHEAD)
    if not job.is_over:
        tokenize(start, min(start + IMAGE_CHUNK, size))
        pool.submit(_read_images, pool, job, tokenize, starts, size)


def _outputs(outcomes: Sequence[Outcome]) -> list[PooledOutput]:
    """Return the outputs, or raise: our own failures before the caller's, then by prompt index."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failures:
        raise min(failures, key=lambda failure: isinstance(failure, RequestError))
    return [outcome for outcome in outcomes if isinstance(outcome, PooledOutput)]


def load_model(
    config: ModelConfig, plugins: PluginConfig, *, max_waiting_prompts: int = MAX_WAITING_PROMPTS
) -> ServedModel:
    """Load a model for the one task it will serve. The task is settled before the weights are read.

    Raises:
        ConfigError, PluginError, TaskError, StartupError: as `prepare_model` does.
        ModelError: likewise, or the weights cannot be loaded.
    """
    prepared = prepare_model(config, plugins)
    try:
        engine = prepared.provider.load_engine(prepared.info, task=prepared.task.task, config=config)
    except BaseException:
        prepared.task.close()
        raise
    return ServedModel(
        info=prepared.info,
        task=prepared.task,
        registry=prepared.registry,
        encoder=prepared.encoder,
        engine=engine,
        config=config,
        max_waiting_prompts=max_waiting_prompts,
    )
