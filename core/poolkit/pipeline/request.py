"""One request on its way through the model: its rounds, and the threads that they run in online."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar, cast

from pydantic import BaseModel

from poolkit.contract import (
    ItemError,
    Outcome,
    PooledOutput,
    Prepared,
    RequestScope,
    in_scope,
    request_scope,
)
from poolkit.engine.job import Admission, Job
from poolkit.errors import BatchError, CancelledRequestError, ClosedError, HookError, RequestError
from poolkit.operations import Usage
from poolkit.pipeline.mailbox import Mailbox
from poolkit.pipeline.tokenizing import are_small
from poolkit.registry import BoundOperation

__all__ = ["OnlineRequest", "Rounds", "Start", "Watch"]

T = TypeVar("T")

LOOP_CHARACTERS = 4096
"""Prompts with no more are tokenized on the event loop, in less than a millisecond; the thread that takes more lets the
loop go on meanwhile, because tokenizers work without the interpreter's lock."""

LOOP_OUTPUT_BYTES = 1 << 16
"""Outputs with no more are post-processed and written on the event loop: a vector of 384 numbers is 1.5 kB."""

WATCH_AFTER_S = 0.02
"""The time after which a client that has left is noticed."""


class Start(Protocol):
    """Sends prepared prompts on their way."""

    def __call__(self, bound: BoundOperation, prepared: Prepared, *, fails_fast: bool, admission: Admission) -> Job:
        """Return the job of one round. A request is admitted with its first round."""
        ...


class Rounds:
    """A request in the rounds that its operation takes, mostly one.

    Args:
        bound: the operation.
        start: sends the prompts of a round on their way.
        end: forgets what is kept for a request.
        keeps_others: run the other prompts of a batch of which one has failed, for `BatchError`.
    """

    def __init__(
        self, bound: BoundOperation, start: Start, end: Callable[[Admission], None], *, keeps_others: bool
    ) -> None:
        self._bound = bound
        self._start = start
        self._end = end
        self._keeps_others = keeps_others
        self._admission = Admission()
        self._round = 0
        self._tokens_before = 0

    def prepare(self, request: BaseModel) -> Prepared:
        """Pre-process a request; return its first round."""
        return self._bound.pre_process(request)

    def run(self, prepared: Prepared) -> Job:
        """Send the prompts of a round on their way."""
        self._prepared = prepared
        self._round += 1
        is_whole = not (self._bound.operation.per_item or self._has_callers_prompts)
        self._job = self._start(self._bound, prepared, fails_fast=is_whole, admission=self._admission)
        return self._job

    def advance(self) -> Prepared | BaseModel:
        """Return the next round, or the response, once the last job is over.

        Raises:
            RequestError: the input is wrong.
            BatchError: some of several prompts failed.
            HookError: a plugin failed.
            EngineError: the model failed.
        """
        outputs = self._outputs(self._job.outcomes())
        is_last = self._round == self._bound.operation.max_rounds
        result = self._bound.advance(self._prepared, outputs, is_last=is_last)
        if isinstance(result, Prepared):
            self._tokens_before += Usage.of([one for one in outputs if isinstance(one, PooledOutput)]).total_tokens
            return result
        return _with_tokens(result, self._tokens_before)

    def close(self) -> None:
        """Forget what was kept for the rounds, once no job of theirs goes on: however the request ended."""
        if self._admission.kept_keys:
            self._end(self._admission)

    @property
    def _has_callers_prompts(self) -> bool:
        """True if a `BatchError` can tell the caller which inputs failed: by the first round's prompts alone."""
        return self._keeps_others and self._prepared.outputs_map_to_inputs and self._round == 1

    def _outputs(self, outcomes: Sequence[Outcome]) -> Sequence[PooledOutput]:
        """Return the outputs, or raise: our own failures before the caller's, then by prompt index."""
        prepared = self._prepared
        failures = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Exception)}
        hook_failure = next((failure for failure in failures.values() if isinstance(failure, HookError)), None)
        if hook_failure is not None:
            raise hook_failure  # of a wrapper around the model: no prompt's fault
        if self._bound.operation.per_item:
            origin = prepared.origin or range(len(outcomes))
            items = [
                ItemError(origin[index], outcome) if isinstance(outcome, Exception) else outcome
                for index, outcome in enumerate(outcomes)
            ]
            return cast("Sequence[PooledOutput]", items)  # as the operation has asked for
        if failures and self._has_callers_prompts and len(outcomes) > 1:
            raise BatchError(failures, [None if i in failures else outcome for i, outcome in enumerate(outcomes)])
        if failures:
            raise min(failures.values(), key=lambda failure: isinstance(failure, RequestError))
        return [outcome for outcome in outcomes if isinstance(outcome, PooledOutput)]


class OnlineRequest(Generic[T]):
    """A request of an event loop, on its way through hooks and model. `answer` resolves to the encoded response.

    On the loop, a small request wakes two threads: the engine's, and the loop's once for a batch. Otherwise it wakes
    four: a worker that decodes and tokenizes, the engine's, a worker that post-processes and encodes, and the loop's.

    Args:
        rounds: the rounds of the request.
        pool: runs what does not run on the loop.
        mailbox: of the loop.
        decode: returns the request.
        encode: writes the response.
        scope: the request as hooks may know it.
        on_loop: run what is small in the thread of the loop: `decode`, `encode` and all hooks must never block.
    """

    def __init__(
        self,
        rounds: Rounds,
        pool: Executor,
        mailbox: Mailbox,
        decode: Callable[[], BaseModel],
        encode: Callable[[BaseModel], T],
        scope: RequestScope,
        *,
        on_loop: bool,
    ) -> None:
        self._rounds = rounds
        self._pool = pool
        self._mailbox = mailbox
        self._decode = decode
        self._encode = encode
        self._scope = scope
        self._on_loop = on_loop
        self._job: Job | None = None
        self._is_cancelled = False
        self.answer: asyncio.Future[T] = mailbox.loop.create_future()

    def start(self) -> None:
        """Send the request on its way."""
        if self._on_loop:
            with request_scope(self._scope):
                self._begin()
        else:
            self._submit(self._begin)

    def cancel(self) -> None:
        """Give up the prompts that have not run yet."""
        self._is_cancelled = True
        if self._job is not None:
            self._job.cancel(CancelledRequestError("The client went away."))
        self._rounds.close()

    def leave(self) -> None:
        """Cancel, and answer with a CancelledRequestError, because the client has gone."""
        if not self.answer.done():
            self.answer.set_exception(CancelledRequestError("The client went away."))
            self.cancel()

    def _submit(self, work: Callable[[], None]) -> None:
        try:
            self._pool.submit(in_scope(self._scope, work))
        except RuntimeError:  # the pool is shut down
            self._fail(ClosedError("The model is shutting down and accepts nothing more."))

    def _begin(self) -> None:
        try:
            prepared = self._rounds.prepare(self._decode())
        except BaseException as error:  # noqa: BLE001 - the waiting request must be told whatever happens here
            self._fail(error)
        else:
            self._run_round(prepared)

    def _run_round(self, prepared: Prepared) -> None:
        if self._mailbox.is_here and not are_small(prepared.prompts, LOOP_CHARACTERS):
            self._submit(lambda: self._send(prepared))
        else:
            self._send(prepared)

    def _send(self, prepared: Prepared) -> None:
        try:
            job = self._rounds.run(prepared)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._fail(error)
            return
        self._job = job
        if self._is_cancelled:
            self.cancel()
        job.add_done_callback(lambda: self._receive(job))

    def _receive(self, job: Job) -> None:
        """Go on with what the model gave, where there is room for it. Runs in the engine's thread."""
        if self._on_loop and _are_small_outputs(job.outcomes()):
            self._mailbox.post(self._go_on_here)
        else:
            self._submit(self._go_on)

    def _go_on_here(self) -> None:
        with request_scope(self._scope):
            self._go_on()

    def _go_on(self) -> None:
        if self._is_cancelled:
            return
        try:
            result = self._rounds.advance()
            if isinstance(result, Prepared):
                self._run_round(result)
                return
            answer = self._encode(result)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._fail(error)
        else:
            self._end(lambda: self.answer.set_result(answer))

    def _fail(self, error: BaseException) -> None:
        self._end(lambda: self.answer.set_exception(error))

    def _end(self, tell: Callable[[], None]) -> None:
        """Close the rounds, and tell the event loop, unless it no longer waits."""
        self._rounds.close()
        if self._mailbox.is_here:
            self._tell(tell)
        else:
            self._mailbox.post(lambda: self._tell(tell))

    def _tell(self, tell: Callable[[], None]) -> None:
        if not self.answer.done():
            tell()


class Watch:
    """Cancels a request whose client leaves. Most requests are over before it begins: a task for each would cost more.

    Args:
        left: returns once the client has gone.
        request: of the running event loop.
    """

    def __init__(self, left: Callable[[], Coroutine[object, object, None]], request: OnlineRequest[T]) -> None:
        self._left = left
        self._leave = request.leave
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(WATCH_AFTER_S, self._begin)

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        await self._left()
        self._leave()


def _are_small_outputs(outcomes: Sequence[Outcome]) -> bool:
    outputs = (outcome for outcome in outcomes if isinstance(outcome, PooledOutput))
    return sum(output.data.nbytes + sum(part.nbytes for part in output.parts.values()) for output in outputs) <= (
        LOOP_OUTPUT_BYTES
    )


def _with_tokens(response: BaseModel, tokens: int) -> BaseModel:
    """Return a response whose usage counts the tokens of earlier rounds too."""
    usage = getattr(response, "usage", None)
    if not tokens or not isinstance(usage, Usage):
        return response
    both = Usage(prompt_tokens=usage.prompt_tokens + tokens, total_tokens=usage.total_tokens + tokens)
    updated: Mapping[str, object] = {"usage": both}
    return response.model_copy(update=dict(updated))
