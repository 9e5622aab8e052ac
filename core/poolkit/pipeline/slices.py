"""A slice of a request's prompts on its way through the wrappers around the model, and the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from poolkit.contract import EncodedPrompt, Outcome
from poolkit.engine.job import Job
from poolkit.errors import RequestError
from poolkit.registry import RunWrapper, start_run
from poolkit.tokenization import Encoder

__all__ = ["Slice"]


class Slice:
    """Prompts that are tokenized, wrapped and run together.

    Wrappers that split long prompts stand outside of the others, which are never given any that is longer than the
    model's maximum. The wrappers' first halves run where the slice is made, their second halves in a worker thread:
    never in the engine's.

    Args:
        job: the job that the prompts belong to.
        encoded: the prompts.
        wrappers: those around the model, outermost first.
        encoder: fits prompts to the model.
        in_worker: runs a function in a worker thread.

    Raises:
        RequestError: a wrapper refuses the prompts.
        HookError: a wrapper failed.
    """

    def __init__(
        self,
        job: Job,
        encoded: Sequence[EncodedPrompt],
        wrappers: Sequence[RunWrapper],
        encoder: Encoder,
        *,
        in_worker: Callable[[Callable[[], None]], object],
    ) -> None:
        self._job = job
        self._indices = [prompt.index for prompt in encoded]
        self._in_worker = in_worker
        self._lock = threading.Lock()
        self._outer = start_run([wrapper for wrapper in wrappers if wrapper.takes_long_prompts], encoded)
        fitted = [encoder.fit(prompt) if prompt.unread is None else prompt for prompt in self._outer.to_run]
        self._fitted = fitted
        fitting = [prompt for prompt in fitted if isinstance(prompt, EncodedPrompt)]
        self._inner = start_run([wrapper for wrapper in wrappers if not wrapper.takes_long_prompts], fitting)
        self._outcomes: list[Outcome | None] = [None] * len(self._inner.to_run)
        self._missing = len(self._outcomes)

    def start(self, encoder: Encoder) -> list[tuple[int, EncodedPrompt]]:
        """Return the prompts that shall run, each with its place; those that cannot have their outcome then."""
        ready: list[tuple[int, EncodedPrompt]] = []
        refused: list[tuple[int, Outcome]] = []
        for place, prompt in enumerate(self._inner.to_run):
            read = encoder.read(prompt)
            if isinstance(read, RequestError):
                refused.append((place, read))
            else:
                ready.append((place, read))
        if refused or not ready:
            self.settle(refused)
        return ready

    def settle(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        """Record outcomes by place; once all are known, let the wrappers finish in a worker thread."""
        with self._lock:
            for place, outcome in outcomes:
                if self._outcomes[place] is None:
                    self._outcomes[place] = outcome
                    self._missing -= 1
            is_over = self._missing == 0
        if is_over:
            self._in_worker(self._finish)

    def _finish(self) -> None:
        results: Sequence[Outcome]
        try:
            inner = iter(self._inner.finish([outcome for outcome in self._outcomes if outcome is not None]))
            outer = [next(inner) if isinstance(prompt, EncodedPrompt) else prompt for prompt in self._fitted]
            results = self._outer.finish(outer)
        except Exception as error:  # noqa: BLE001 - the job must be told whatever happens in this thread
            results = [error] * len(self._indices)
        self._job.settle(list(zip(self._indices, results, strict=True)))
