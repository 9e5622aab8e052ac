"""One served model: the pipeline that offline calls and HTTP requests share.

    request ─► pre_process ─► prompts ─► tokenize ─► wrappers' run ─► scheduler ─► engine ─► post_process ─► response

Blocking work runs in thread pools: one for tokenization, and one for each operation's hooks and JSON, so that neither
holds up the other and an operation with a slow plugin holds up only itself. A small request to an operation that never
blocks stays on the event loop, but for the model.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from time import perf_counter
from typing import ParamSpec, TypeVar

from pydantic import BaseModel

from poolkit.config import MAX_WAITING_PROMPTS, ModelConfig, PluginConfig
from poolkit.contract import (
    Decision,
    ModalityPrompt,
    ModelInfo,
    PoolingParams,
    PoolingTask,
    Prepared,
    RequestScope,
    ResolvedParams,
    current_request,
    in_scope,
    request_scope,
)
from poolkit.engine.job import Admission, Job
from poolkit.engine.model import Engine
from poolkit.engine.scheduler import Scheduler, SchedulerStats
from poolkit.engine.stages import Stage, Stages
from poolkit.engine.streams import Streams
from poolkit.errors import CancelledRequestError, RequestError
from poolkit.pipeline import prepare_model, report, report_quarantined
from poolkit.pipeline.mailbox import Mailbox
from poolkit.pipeline.request import OnlineRequest, Rounds, Watch
from poolkit.pipeline.tokenizing import Tokenization, are_small
from poolkit.pipeline.weights import load_weights
from poolkit.registry import MODELS, BoundOperation, BoundTask, Registry
from poolkit.tokenization import Encoder

__all__ = ["ServedModel", "load_model"]

P = ParamSpec("P")
T = TypeVar("T")

TOKENIZE_CHUNK = 256
"""Prompts tokenized at a time: few enough that the engine starts soon, enough that it finds some of like length."""

INLINE_CHARACTERS = 1 << 16
"""A request with no more is tokenized where it was read: handing it to another thread would take longer."""

READ_CHUNK = 8
"""Prompts of another modality than text that are read at a time."""
READ_AHEAD = 64
"""Those of one request that wait for the engine: an image that is read takes about a megabyte."""

PROGRESS_INTERVAL_S = 0.1


class ServedModel:
    """A loaded model with its one task. Thread safe.

    Attributes:
        name: the model as the user named it.
        info: what its files say.
        task: the task it serves.
        operations: what it can be asked, by name.
        registry: the enabled plugins, among which the task was found.
        modalities: the types of the prompts that requests may hold beside texts, by modality.
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
        max_waiting_prompts: int = MAX_WAITING_PROMPTS,
    ) -> None:
        self.name = info.name
        self.info = info
        self.task: PoolingTask = task.task
        self.registry = registry
        self.modalities = {name: modality.prompt for name, modality in registry.modalities.items()}
        self.operations: Mapping[str, BoundOperation] = task.operations
        streams = Streams.resolve(info.config, gains_from=engine.num_streams, efficient_tokens=engine.efficient_tokens)
        self.decisions: tuple[Decision, ...] = (
            *report(info, task.task),
            *engine.decisions,
            *encoder.decisions,
            streams.decision,
            *report_quarantined(registry),
        )
        self._bound = task
        self._engine = engine
        self._encoder = encoder
        self._max_num_seqs = info.config.max_num_seqs
        self._stages = Stages()
        self._scheduler = Scheduler(
            engine,
            streams=streams,
            max_num_batched_tokens=info.config.max_num_batched_tokens,
            max_num_seqs=info.config.max_num_seqs,
            max_waiting_prompts=max_waiting_prompts,
            stages=self._stages,
        )
        self._mailbox: Mailbox | None = None
        cpus = os.cpu_count() or 1
        self._tokenizer_pool = ThreadPoolExecutor(max(1, cpus // 2), thread_name_prefix="poolkit-tokenize")
        self._readers = max(1, cpus // 2)
        self._reader_pool = (
            ThreadPoolExecutor(self._readers, thread_name_prefix="poolkit-readers") if info.modalities else None
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
        with request_scope(scope or RequestScope()), closing(self._rounds(operation, keeps_others=True)) as rounds:
            result: Prepared | BaseModel = rounds.prepare(request)
            done = 0
            while isinstance(result, Prepared):
                job = rounds.run(result)
                self._wait_for(job, done, on_progress)
                done += job.size
                result = rounds.advance()
            return result

    def _rounds(self, operation: str, *, keeps_others: bool) -> Rounds:
        return Rounds(self.operations[operation], self._start, self._scheduler.end, keeps_others=keeps_others)

    def _wait_for(self, job: Job, done_before: int, on_progress: Callable[[int, int], None] | None) -> None:
        try:
            while not job.is_over:
                job.wait_until_done(job.size, PROGRESS_INTERVAL_S)
                if on_progress is not None:
                    on_progress(done_before + job.done, done_before + job.size)
        except BaseException:
            job.cancel(CancelledRequestError("The caller gave up."))
            raise

    async def arun(
        self,
        operation: str,
        decode: Callable[[], BaseModel],
        encode: Callable[[BaseModel], T],
        *,
        scope: RequestScope | None = None,
        is_small: bool = False,
        left: Callable[[], Coroutine[object, object, None]] | None = None,
    ) -> T:
        """Return `encode(response)` to the request that `decode` makes.

        Cancelling the awaiting task gives up the prompts that have not run yet.

        Args:
            operation: one of `operations`.
            decode: returns the request.
            encode: writes the response.
            scope: the request as hooks may know it.
            is_small: `decode` and `encode` never block, and a small answer may be expected: they and the hooks run on
                the event loop if these never block either. Otherwise all run in worker threads.
            left: returns once the client has gone, which then cancels the request.

        Raises:
            RequestError: the input is wrong, or `decode` says so; with several bad prompts, the first one's error.
            OverloadedError: too much is waiting already.
            CancelledRequestError: the client has left.
            HookError: a plugin failed.
            EngineError: the model failed.
        """
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = Mailbox(loop)
        request = OnlineRequest(
            self._rounds(operation, keeps_others=False),
            self._io_pools[operation],
            self._mailbox,
            self._timed(Stage.DECODE, decode),
            self._timed(Stage.ENCODE, encode),
            scope or RequestScope("http"),
            on_loop=is_small and self.operations[operation].never_blocks,
        )
        request.start()
        watch = None if left is None or request.answer.done() else Watch(left, request)
        try:
            return await request.answer
        except asyncio.CancelledError:
            request.cancel()
            raise
        finally:
            if watch is not None:
                watch.end()

    @property
    def is_alive(self) -> bool:
        """True if prompts can be run: not once the engine's thread has died."""
        return self._scheduler.is_alive

    def stats(self) -> SchedulerStats:
        """Return the counts since start-up."""
        return self._scheduler.stats()

    def stage_seconds(self) -> Mapping[Stage, float]:
        """Return the seconds that requests have spent in each stage since start-up."""
        return self._stages.seconds()

    def close(self, timeout_s: float | None = None) -> None:
        """Refuse new work, finish what was accepted within `timeout_s`, and release the model."""
        self._scheduler.close(timeout_s)
        self._tokenizer_pool.shutdown(cancel_futures=True)
        if self._reader_pool is not None:
            self._reader_pool.shutdown(cancel_futures=True)
        for io_pool in self._io_pools.values():
            io_pool.shutdown(cancel_futures=True)
        self._bound.close()
        self._engine.close()

    def _start(self, bound: BoundOperation, prepared: Prepared, *, fails_fast: bool, admission: Admission) -> Job:
        """Send the prompts of a round on their way: each slice goes to the engine as soon as it is tokenized.

        Queries that are kept for documents stand last. They are tokenized first, and here, so that none comes too late.
        So are texts that stand in several pairs, so that each is tokenized once.
        """
        prompts, given = prepared.prompts, prepared.params_of_each
        resolved = self._resolve(given, admission)
        params = [resolved[id(each)] for each in given]
        size = len(prompts)
        self._check_groups(prepared)
        known = self._encoder.tokenize_shared(prompts, params) if size > TOKENIZE_CHUNK else {}
        job = self._scheduler.open(size, fails_fast=fails_fast, admission=admission)
        kept = {id(one) for one in resolved.values() if _keeps_query(one)}
        others = size - len([one for one in params if id(one) in kept]) if kept else size
        scope, pool = current_request(), self._io_pools[bound.operation.name]
        tokenization = Tokenization(
            job,
            prepared,
            params,
            known,
            bound.run_wrappers,
            encoder=self._encoder,
            scheduler=self._scheduler,
            in_worker=lambda work: pool.submit(in_scope(scope, work)),
            stages=self._stages,
        )
        tokenize = in_scope(scope, tokenization.run)
        if others < size:
            tokenize(others, size)
        if prepared.groups is not None:  # a group is never split
            tokenize(0, others)
        elif self._reader_pool is not None and any(isinstance(prompt, ModalityPrompt) for prompt in prompts[:others]):
            starts = iter(range(0, others, READ_CHUNK))
            for _ in range(self._readers):
                self._reader_pool.submit(_read_inputs, self._reader_pool, job, tokenize, starts, others)
        elif are_small(prompts[:others], INLINE_CHARACTERS):
            tokenize(0, others)
        else:
            for start in range(0, others, TOKENIZE_CHUNK):
                self._tokenizer_pool.submit(tokenize, start, min(start + TOKENIZE_CHUNK, others))
        return job

    def _resolve(self, params: Sequence[PoolingParams], admission: Admission) -> Mapping[int, ResolvedParams]:
        """Return resolved parameters by the `id` of those that they were made of. Equal ones are resolved once."""
        distinct = {id(one): one for one in params}
        resolved = {one: _name_query(self._encoder.resolve(one), admission) for one in dict.fromkeys(distinct.values())}
        return {number: resolved[one] for number, one in distinct.items()}

    def _timed(self, stage: Stage, function: Callable[P, T]) -> Callable[P, T]:
        """Return `function`, whose seconds count as those of a stage."""

        def timed(*arguments: P.args, **options: P.kwargs) -> T:
            started = perf_counter()
            result = function(*arguments, **options)
            self._stages.add(stage, perf_counter() - started)
            return result

        return timed

    def _check_groups(self, prepared: Prepared) -> None:
        """Raise RequestError for a group that is larger than a batch may be, or holds what no batch holds together."""
        sizes = Counter(group for group in prepared.groups or () if group is not None)
        if not sizes:
            return
        modalities: dict[Hashable, str] = {}
        for group, prompt in zip(prepared.groups or (), prepared.prompts, strict=True):
            modality = prompt.modality if isinstance(prompt, ModalityPrompt) else "text"
            if group is not None and modalities.setdefault(group, modality) != modality:
                raise RequestError(
                    f"Prompts of {modalities[group]} and of {modality} belong together (group {group!r}), and only "
                    "those of one kind run in one batch. Send each kind by itself."
                )
        for group, size in sizes.items():
            if size > self._max_num_seqs:
                raise RequestError(
                    f"{size} prompts belong together (group {group!r}), and at most {self._max_num_seqs} run in one "
                    "batch (max_num_seqs). Send fewer in one request."
                )


def _keeps_query(params: ResolvedParams) -> bool:
    return params.late_interaction is not None and params.late_interaction.mode == "cache_query"


def _name_query(params: ResolvedParams, admission: Admission) -> ResolvedParams:
    """Return parameters whose query has a name that no other request gives to one of its own."""
    late = params.late_interaction
    if late is None:
        return params
    return replace(params, late_interaction=replace(late, query_key=f"{admission.name}/{late.query_key}"))


def _read_inputs(
    pool: ThreadPoolExecutor, job: Job, tokenize: Callable[[int, int], None], starts: Iterator[int], size: int
) -> None:
    """Encode the next chunk of a request with other prompts than texts once few wait, then stand in line for another.

    So the inputs of a large request do not fill the memory, nor hold up those of a small one.
    """
    start = next(starts, None)
    if start is None:
        return
    job.wait_until_done(start - READ_AHEAD)
    if not job.is_over:
        tokenize(start, min(start + READ_CHUNK, size))
        pool.submit(_read_inputs, pool, job, tokenize, starts, size)


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
        engine = load_weights(
            prepared.engines,
            prepared.info,
            task=prepared.task.task,
            settings=prepared.task.settings,
            encoder=prepared.encoder,
            pooling=prepared.registry.entries(MODELS, "pooling"),
        )
    except BaseException:
        prepared.task.close()
        raise
    return ServedModel(
        info=prepared.info,
        task=prepared.task,
        registry=prepared.registry,
        encoder=prepared.encoder,
        engine=engine,
        max_waiting_prompts=max_waiting_prompts,
    )
