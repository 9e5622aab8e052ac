"""A request's rounds as the scheduler knows them: what they share, and the prompts of each on their way."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from uuid import uuid4

from poolkit.contract import Outcome, PooledOutput, TextToken

__all__ = ["Admission", "Job"]


@dataclass(eq=False, slots=True)
class Admission:
    """A request's place in the scheduler, which all of its rounds share.

    Attributes:
        name: tells its queries from those of other requests.
        is_granted: True once its first round was let in: no later one is refused.
        kept_keys: of the queries that the model keeps until the request ends.
    """

    name: str = field(default_factory=lambda: uuid4().hex)
    is_granted: bool = False
    kept_keys: list[str] = field(default_factory=list)


class Job:
    """Prompts that are answered together.

    `future` resolves to one outcome per prompt, in prompt order. It always resolves, and never to an exception. A
    `fails_fast` job resolves at its first failure and gives up its other prompts.
    """

    def __init__(self, size: int, *, fails_fast: bool) -> None:
        self.size = size
        self.future: Future[list[Outcome]] = Future()
        self.future.set_running_or_notify_cancel()  # a waiter that gives up must not cancel the future under us
        self._fails_fast = fails_fast
        self._outcomes: list[Outcome | None] = [None] * size
        self._missing = size
        self._is_over = size == 0
        self._text_tokens: dict[int, Sequence[TextToken]] = {}
        self._lock = threading.Lock()
        self._progressed = threading.Condition(self._lock)
        if size == 0:
            self.future.set_result([])

    @property
    def done(self) -> int:
        """The number of prompts that have their outcome."""
        return self.size - self._missing

    @property
    def is_over(self) -> bool:
        """True if every outcome is known or given up. Asked often, and so without the future's lock."""
        return self._is_over

    def keep_text_tokens(self, text_tokens: Mapping[int, Sequence[TextToken]]) -> None:
        """Keep the tokens of some prompts with their offsets, by prompt index, for `outcomes`."""
        with self._lock:
            self._text_tokens.update(text_tokens)

    def outcomes(self) -> list[Outcome]:
        """Return one outcome per prompt, in prompt order, once the job is over."""
        outcomes = self.future.result()
        for index, tokens in self._text_tokens.items():
            if isinstance(outcome := outcomes[index], PooledOutput):
                outcomes[index] = replace(outcome, text_tokens=tokens)
        return outcomes

    def wait_until_done(self, count: int) -> None:
        """Block until so many prompts have their outcome, or all are given up."""
        with self._progressed:
            self._progressed.wait_for(lambda: self.future.done() or self.done >= count)

    def settle(self, outcomes: Sequence[tuple[int, Outcome]]) -> int:
        """Record outcomes by prompt index; return how many counted (none does twice, or after the end)."""
        with self._lock:
            if self.future.done():
                return 0
            before = self._missing
            failure: Exception | None = None
            for index, outcome in outcomes:
                if self._outcomes[index] is None:
                    self._outcomes[index] = outcome
                    self._missing -= 1
                    if isinstance(outcome, Exception):
                        failure = failure or outcome
            counted = before - self._missing
            if self._missing == 0 or (self._fails_fast and failure is not None):
                self._resolve(failure)
            self._progressed.notify_all()
            return counted

    def cancel(self, reason: Exception) -> int:
        """Give up the prompts that have no outcome yet, for `reason`; return how many those were."""
        with self._lock:
            if self.future.done():
                return 0
            given_up = self._missing
            self._resolve(reason)
            self._progressed.notify_all()
            return given_up

    def _resolve(self, reason: Exception | None) -> None:
        outcomes = [reason if outcome is None else outcome for outcome in self._outcomes]
        self._missing = 0
        self._is_over = True
        self.future.set_result([outcome for outcome in outcomes if outcome is not None])
