"""One request on its way through the model: its rounds, and the threads that they run in online."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar, cast

from pydantic import BaseModel

from poolkit.contract import ItemError, Outcome, PooledOutput, Prepared, RequestScope, in_scope
from poolkit.engine.job import Admission, Job
from poolkit.errors import BatchError, CancelledRequestError, ClosedError, HookError, RequestError
from poolkit.operations import Usage
from poolkit.registry import BoundOperation

__all__ = ["OnlineRequest", "Rounds", "Start"]

T = TypeVar("T")


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

    def begin(self, request: BaseModel) -> Job:
        """Pre-process a request; return the job of its first round."""
        return self._run(self._bound.pre_process(request))

    def advance(self) -> Job | BaseModel:
        """Return the job of the next round, or the response, once the last job is over.

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
            return self._run(result)
        return _with_tokens(result, self._tokens_before)

    def close(self) -> None:
        """Forget what was kept for the rounds, once no job of theirs goes on: however the request ended."""
        if self._admission.kept_keys:
            self._end(self._admission)

    def _run(self, prepared: Prepared) -> Job:
        self._prepared = prepared
        self._round += 1
        is_whole = not (self._bound.operation.per_item or self._has_callers_prompts)
        self._job = self._start(self._bound, prepared, fails_fast=is_whole, admission=self._admission)
        return self._job

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
    """A request of an event loop, on its way through worker threads. `answer` resolves to the encoded response.

    A small request wakes four threads: a worker that decodes and tokenizes, the engine, a worker that post-processes
    and encodes, and the event loop, once.

    Args:
        rounds: the rounds of the request.
        pool: runs hooks and JSON.
        decode: returns the request.
        encode: writes the response.
        scope: the request as hooks may know it.
    """

    def __init__(
        self,
        rounds: Rounds,
        pool: Executor,
        decode: Callable[[], BaseModel],
        encode: Callable[[BaseModel], T],
        scope: RequestScope,
    ) -> None:
        self._rounds = rounds
        self._pool = pool
        self._decode = decode
        self._encode = encode
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._job: Job | None = None
        self._is_cancelled = False
        self.answer: asyncio.Future[T] = self._loop.create_future()

    def start(self) -> None:
        """Send the request on its way."""
        self._submit(self._begin)

    def cancel(self) -> None:
        """Give up the prompts that have not run yet."""
        self._is_cancelled = True
        if self._job is not None:
            self._job.cancel(CancelledRequestError("The client went away."))
        self._rounds.close()

    def _submit(self, work: Callable[[], None]) -> None:
        try:
            self._pool.submit(in_scope(self._scope, work))
        except RuntimeError:  # the pool is shut down
            self._fail(ClosedError("The model is shutting down and accepts nothing more."))

    def _begin(self) -> None:
        try:
            job = self._rounds.begin(self._decode())
        except BaseException as error:  # noqa: BLE001 - the waiting request must be told whatever happens here
            self._fail(error)
        else:
            self._wait_for(job)

    def _wait_for(self, job: Job) -> None:
        self._job = job
        if self._is_cancelled:
            self.cancel()
        job.add_done_callback(lambda: self._submit(self._go_on))

    def _go_on(self) -> None:
        if self._is_cancelled:
            return
        try:
            result = self._rounds.advance()
            if isinstance(result, Job):
                self._wait_for(result)
                return
            answer = self._encode(result)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._fail(error)
        else:
            self._end(lambda: self.answer.set_result(answer))

    def _fail(self, error: BaseException) -> None:
        self._end(lambda: self.answer.set_exception(error))

    def _end(self, tell: Callable[[], None]) -> None:
        """Close the rounds, and wake the event loop, unless it is gone or no longer waits."""
        self._rounds.close()
        try:
            self._loop.call_soon_threadsafe(lambda: None if self.answer.done() else tell())
        except RuntimeError:  # the loop is closed
            return


def _with_tokens(response: BaseModel, tokens: int) -> BaseModel:
    """Return a response whose usage counts the tokens of earlier rounds too."""
    usage = getattr(response, "usage", None)
    if not tokens or not isinstance(usage, Usage):
        return response
    both = Usage(prompt_tokens=usage.prompt_tokens + tokens, total_tokens=usage.total_tokens + tokens)
    updated: Mapping[str, object] = {"usage": both}
    return response.model_copy(update=dict(updated))
