"""One served model: the pipeline that offline calls and HTTP requests share.

    request ─► pre_process ─► prompts ─► tokenize ─► wrappers' run ─► scheduler ─► engine ─► post_process ─► response

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
from typing import Generic, TypeVar

from pydantic import BaseModel

from poolkit.config import MAX_WAITING_PROMPTS, ModelConfig, PluginConfig
from poolkit.contract import (
    Decision,
    EncodedPrompt,
    Engine,
    ImagePrompt,
    ModelInfo,
    Outcome,
    PooledOutput,
    PoolingTask,
    Prepared,
    Prompt,
    RequestScope,
    ResolvedParams,
    TextToken,
    current_request,
    in_scope,
    request_scope,
)
from poolkit.engine.job import Job
from poolkit.engine.scheduler import Scheduler, SchedulerStats
from poolkit.errors import BatchError, CancelledRequestError, ClosedError, HookError, RequestError
from poolkit.pipeline import prepare_model, report, report_quarantined
from poolkit.pipeline.slices import Slice
from poolkit.registry import BoundOperation, BoundTask, Registry
from poolkit.tokenization import Encoder, TokenizedTexts

__all__ = ["ServedModel", "load_model"]

T = TypeVar("T")

TOKENIZE_CHUNK = 256
"""Prompts tokenized at a time: few enough that the engine starts soon, enough that the tokenizer's threads pay."""

INLINE_PROMPTS = 32
INLINE_CHARACTERS = 1 << 16
"""A request with no more is tokenized where it was read: handing it to another thread would take longer."""

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
        self,
        operation: str,
        request: BaseModel,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        scope: RequestScope | None = None,
    ) -> BaseModel:
        """Return the response to a request, blocking until it is there.

        Args:
            operation: one of `operations`.
            request: of the operation's request type.
            on_progress: called now and then, in the calling thread, with the numbers of prompts done and in all.
            scope: the request as hooks may know it; an offline call by default.

        Raises:
            RequestError: the input is wrong.
            BatchError: some of several prompts failed; it carries the outputs of the others.
            HookError: a plugin failed.
            EngineError: the model failed on the only prompt.
        """
        with request_scope(scope or RequestScope()):
            return self._run(self.operations[operation], request, on_progress)

    def _run(
        self, bound: BoundOperation, request: BaseModel, on_progress: Callable[[int, int], None] | None
    ) -> BaseModel:
        prepared = bound.pre_process(request)
        job = self._start(bound, prepared, fails_fast=not prepared.outputs_map_to_inputs)
        try:
            while not job.is_over:
                wait_for_futures([job.future], timeout=PROGRESS_INTERVAL_S)
                if on_progress is not None:
                    on_progress(job.done, job.size)
        except BaseException:
            job.cancel(CancelledRequestError("The caller gave up."))
            raise
        outcomes = job.outcomes()
        failures = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, Exception)}
        is_plugins_fault = any(isinstance(failure, HookError) for failure in failures.values())
        if failures and len(outcomes) > 1 and prepared.outputs_map_to_inputs and not is_plugins_fault:
            raise BatchError(failures, [None if i in failures else outcome for i, outcome in enumerate(outcomes)])
        return bound.post_process(prepared, _outputs(outcomes))

    async def arun(
        self,
        operation: str,
        decode: Callable[[], BaseModel],
        encode: Callable[[BaseModel], T],
        *,
        scope: RequestScope | None = None,
    ) -> T:
        """Return `encode(response)` to the request that `decode` makes. Both run in a worker thread.

        A small request wakes four threads: a worker that decodes and tokenizes, the engine, a worker that
        post-processes and encodes, and the event loop, once.

        Cancelling the awaiting task gives up the prompts that have not run yet.

        Raises:
            RequestError: the input is wrong, or `decode` says so; with several bad prompts, the first one's error.
            OverloadedError: too much is waiting already.
            HookError: a plugin failed.
            EngineError: the model failed.
        """
        request = _OnlineRequest(self, operation, decode, encode, scope or RequestScope("http"))
        request.submit(request.start)
        try:
            return await request.answer
        except asyncio.CancelledError:
            request.cancel()
            raise

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

    def _start(self, bound: BoundOperation, prepared: Prepared, *, fails_fast: bool) -> Job:
        """Send the prompts on their way: each chunk goes to the engine as soon as it is tokenized.

        Queries that are kept for documents stand last. They are tokenized first, and here, so that none comes too late.
        So are texts that stand in several pairs, so that each is tokenized once.
        """
        prompts = tuple(prepared.prompts)  # a processor that changes its list later on changes nothing here
        resolved = {params: self._encoder.resolve(params) for params in dict.fromkeys(prepared.params_of_each)}
        params = [resolved[each] for each in prepared.params_of_each]
        size = len(prompts)
        known = self._encoder.tokenize_shared(prompts, params)
        job = self._scheduler.open(size, fails_fast=fails_fast)
        others = size - sum(
            one.late_interaction is not None and one.late_interaction.mode == "cache_query" for one in params
        )
        tokenization = _Tokenization(self, bound, prepared, job, prompts, params, known)
        tokenize = in_scope(current_request(), tokenization.run)
        if others < size:
            tokenize(others, size)
        if self._image_pool is not None and any(isinstance(prompt, ImagePrompt) for prompt in prompts[:others]):
            starts = iter(range(0, others, IMAGE_CHUNK))
            for _ in range(self._image_workers):
                self._image_pool.submit(_read_images, self._image_pool, job, tokenize, starts, others)
        elif _is_small(prompts[:others]):
            tokenize(0, others)
        else:
            for start in range(0, others, TOKENIZE_CHUNK):
                self._tokenizer_pool.submit(tokenize, start, min(start + TOKENIZE_CHUNK, others))
        return job


class _OnlineRequest(Generic[T]):
    """One request of an event loop, on its way through the worker threads."""

    def __init__(
        self,
        model: ServedModel,
        operation: str,
        decode: Callable[[], BaseModel],
        encode: Callable[[BaseModel], T],
        scope: RequestScope,
    ) -> None:
        self._model = model
        self._bound = model.operations[operation]
        self._pool = model._io_pools[operation]
        self._decode = decode
        self._encode = encode
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[T] = self._loop.create_future()
        self._job: Job | None = None
        self._is_cancelled = False

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in a worker thread."""
        try:
            self._pool.submit(in_scope(self._scope, work))
        except RuntimeError:  # the pool is shut down
            self._fail(ClosedError("The model is shutting down and accepts nothing more."))

    def start(self) -> None:
        """Decode and pre-process the request, and send its prompts on their way."""
        try:
            prepared = self._bound.pre_process(self._decode())
            job = self._model._start(self._bound, prepared, fails_fast=True)
        except BaseException as error:  # noqa: BLE001 - the waiting request must be told whatever happens here
            self._fail(error)
            return
        self._job = job
        if self._is_cancelled:
            self.cancel()
        job.future.add_done_callback(lambda _: self.submit(partial(self._end, prepared, job)))

    def cancel(self) -> None:
        """Give up the prompts that have not run yet."""
        self._is_cancelled = True
        if self._job is not None:
            self._job.cancel(CancelledRequestError("The client went away."))

    def _end(self, prepared: Prepared, job: Job) -> None:
        if self._is_cancelled:
            return
        try:
            answer = self._encode(self._bound.post_process(prepared, _outputs(job.outcomes())))
        except BaseException as error:  # noqa: BLE001 - likewise
            self._fail(error)
        else:
            self._tell(lambda: self.answer.set_result(answer))

    def _fail(self, error: BaseException) -> None:
        self._tell(lambda: self.answer.set_exception(error))

    def _tell(self, tell: Callable[[], None]) -> None:
        """Wake the event loop, unless it is gone or no longer waits."""
        try:
            self._loop.call_soon_threadsafe(lambda: None if self.answer.done() else tell())
        except RuntimeError:  # the loop is closed
            return


class _Tokenization:
    """Tokenizes the prompts of one request, slice by slice, and hands each slice on to the engine."""

    def __init__(
        self,
        model: ServedModel,
        bound: BoundOperation,
        prepared: Prepared,
        job: Job,
        prompts: Sequence[Prompt],
        params: Sequence[ResolvedParams],
        known: TokenizedTexts,
    ) -> None:
        self._encoder = model._encoder
        self._scheduler = model._scheduler
        pool = model._io_pools[bound.operation.name]
        scope = current_request()
        self._in_worker = lambda work: pool.submit(in_scope(scope, work))
        self._wrappers = bound.run_wrappers
        self._takes_long = any(wrapper.takes_long_prompts for wrapper in bound.run_wrappers)
        self._with_text_tokens = prepared.with_text_tokens
        self._job = job
        self._prompts = prompts
        self._params = params
        self._known = known

    def run(self, start: int, stop: int) -> None:
        """Tokenize the prompts from `start` to `stop`, and hand them on. Never raises: the job is told."""
        if self._job.is_over:
            return
        try:
            self._run(start, stop)
        except Exception as error:  # noqa: BLE001 - the job must be told whatever happens in this thread
            self._job.settle([(index, error) for index in range(start, stop)])

    def _run(self, start: int, stop: int) -> None:
        encoded = self._encoder.encode(
            self._prompts[start:stop],
            self._params[start:stop],
            first_index=start,
            refuses_long=not self._takes_long,
            with_text_tokens=self._with_text_tokens,
            known=self._known,
        )
        if self._with_text_tokens:
            self._job.keep_text_tokens(_text_tokens(encoded))
        if not self._wrappers:
            encoded = [
                self._encoder.read(prompt) if isinstance(prompt, EncodedPrompt) else prompt for prompt in encoded
            ]
        ready: list[tuple[int, EncodedPrompt]] = []
        refused: list[tuple[int, Outcome]] = []
        for index, prompt in enumerate(encoded, start):
            if isinstance(prompt, Exception):
                refused.append((index, prompt))
            else:
                ready.append((index, prompt))
        if refused:
            self._job.settle(refused)
        if not self._wrappers:
            self._scheduler.add(self._job, ready)
        elif ready:
            prompts = [prompt for _, prompt in ready]
            part = Slice(self._job, prompts, self._wrappers, self._encoder, in_worker=self._in_worker)
            self._scheduler.add(self._job, part.start(self._encoder), settle=part.settle)


def _is_small(prompts: Sequence[Prompt]) -> bool:
    if len(prompts) > INLINE_PROMPTS:
        return False
    return sum(len(prompt) for prompt in prompts if isinstance(prompt, str)) <= INLINE_CHARACTERS


def _text_tokens(encoded: Sequence[EncodedPrompt | RequestError]) -> dict[int, Sequence[TextToken]]:
    return {prompt.index: prompt.text_tokens for prompt in encoded if isinstance(prompt, EncodedPrompt)}


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
