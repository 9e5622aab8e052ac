"""A request's rounds as the scheduler knows them: what they share, and the prompts of each on their way."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from poolkit.contract import Outcome, PooledOutput, TextToken

__all__ = ["Admission", "Job"]

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Admission:
    """A request's place in the scheduler, which all of its rounds share.

    Attributes:
        is_granted: True once its first round was let in: no later one is refused.
        kept_keys: of the queries that the model keeps until the request ends.
    """

    is_granted: bool = False
    kept_keys: list[str] = field(default_factory=list)
    _name: str = ""

    @property
    def name(self) -> str:
        """Tells the request's queries from those of other requests."""
        self._name = self._name or os.urandom(12).hex()
        return self._name


class Job:
    """Prompts that are answered together.

    It ends with one outcome per prompt, in prompt order, and always ends. A `fails_fast` job ends at its first failure
    and gives up its other prompts.
    """

    def __init__(self, size: int, *, fails_fast: bool) -> None:
        self.size = size
        self._fails_fast = fails_fast
        self._outcomes: list[Outcome | None] = [None] * size
        self._missing = size
        self._is_over = size == 0
        self._text_tokens: dict[int, Sequence[TextToken]] = {}
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self._progressed: threading.Condition | None = None  # made for those that wait: online nobody does

    @property
    def done(self) -> int:
        """The number of prompts that have their outcome."""
        return self.size - self._missing

    @property
    def is_over(self) -> bool:
        """True if every outcome is known or given up. Asked often, and so without the lock."""
        return self._is_over

    def keep_text_tokens(self, text_tokens: Mapping[int, Sequence[TextToken]]) -> None:
        """Keep the tokens of some prompts with their offsets, by prompt index, for `outcomes`."""
        with self._lock:
            self._text_tokens.update(text_tokens)

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Call a function once the job is over: in the thread that ends it, or at once where it is over already.

        Those that were added first are called first. What one raises is logged.
        """
        with self._lock:
            if not self._is_over:
                self._callbacks.append(callback)
                return
        callback()

    def outcomes(self, timeout_s: float | None = None) -> list[Outcome]:
        """Return one outcome per prompt, in prompt order, once the job is over.

        Raises TimeoutError if it is not over in time.
        """
        if not self.wait_until_done(self.size, timeout_s):
            raise TimeoutError(f"{self._missing} of {self.size} prompts have no outcome yet.")
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
        for index, tokens in self._text_tokens.items():
            if isinstance(outcome := outcomes[index], PooledOutput):
                outcomes[index] = replace(outcome, text_tokens=tokens)
        return outcomes

    @property
    def failures(self) -> list[Exception]:
        """The outcomes of prompts that have failed or were given up."""
        return [outcome for outcome in self._outcomes if isinstance(outcome, Exception)]

    def wait_until_done(self, count: int, timeout_s: float | None = None) -> bool:
        """Block until so many prompts have their outcome, or all are given up; return False if time ran out."""
        if self._is_over:
            return True
        with self._lock:
            progressed = self._progressed = self._progressed or threading.Condition(self._lock)
            return progressed.wait_for(lambda: self._is_over or self.done >= count, timeout_s)

    def settle(self, outcomes: Sequence[tuple[int, Outcome]]) -> int:
        """Record outcomes by prompt index; return how many counted (none does twice, or after the end)."""
        with self._lock:
            if self._is_over:
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
            is_over = self._missing == 0 or (self._fails_fast and failure is not None)
            callbacks = self._end(failure) if is_over else ()
            if self._progressed is not None:
                self._progressed.notify_all()
        _call(callbacks)
        return counted

    def cancel(self, reason: Exception) -> int:
        """Give up the prompts that have no outcome yet, for `reason`; return how many those were."""
        with self._lock:
            if self._is_over:
                return 0
            given_up = self._missing
            callbacks = self._end(reason)
            if self._progressed is not None:
                self._progressed.notify_all()
        _call(callbacks)
        return given_up

    def _end(self, reason: Exception | None) -> Sequence[Callable[[], object]]:
        """Give up what is missing, and return what is called outside of the lock."""
        if self._missing:
            self._outcomes = [reason if outcome is None else outcome for outcome in self._outcomes]
        self._missing = 0
        self._is_over = True
        callbacks, self._callbacks = self._callbacks, []
        return callbacks


def _call(callbacks: Sequence[Callable[[], object]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("What was to be called at the end of a job failed.")
