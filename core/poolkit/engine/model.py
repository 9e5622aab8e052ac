"""A loaded model: batches through backbone, pooler and finish. What the scheduler runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol

from poolkit.engine.arrays import AnyArray, ArrayT, inference, is_out_of_memory, operations_of
from poolkit.engine.batch import fit_states, lay_out
from poolkit.engine.finish import NotFiniteError
from poolkit.engine.prefixes import run_batch
from poolkit.errors import EngineError

if TYPE_CHECKING:
    from poolkit.contract import Backbone, Batch, Decision, EncodedPrompt, PooledOutput, PooledRows, Pooler, States
    from poolkit.engine.queries import QueryStore

__all__ = ["Engine", "LoadedModel", "close_backbone"]

logger = logging.getLogger(__name__)

EFFICIENT_TOKENS = 256
"""Of a backbone that says nothing: more than the short texts of a few requests, less than pays to wait for."""


class Engine(Protocol):
    """The part of a loaded model that the scheduler calls."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """Start-up decisions, for the start-up report."""
        ...

    @property
    def num_streams(self) -> int:
        """The threads that should run batches at the same time where the operator does not say."""
        ...

    @property
    def efficient_tokens(self) -> int:
        """The tokens of a batch from which on a larger one is hardly faster per token."""
        ...

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[PooledOutput]:
        """Return the output of each prompt, in order."""
        ...

    def release(self, keys: Sequence[str]) -> None:
        """Forget the queries that are kept under these keys; some of them may be gone already."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class LoadedModel(Generic[ArrayT]):
    """One model with its weights, for one task. Thread safe.

    Args:
        name: the model, for messages.
        backbone: gives hidden states.
        pooler: makes rows of them.
        finish: makes outputs of these.
        queries: the queries that wait for documents.
        decisions: the backbone's and the pooler's, for the start-up report.
    """

    def __init__(
        self,
        name: str,
        backbone: Backbone[ArrayT],
        pooler: Pooler[ArrayT],
        finish: Callable[[PooledRows[ArrayT], Batch], list[PooledOutput]],
        *,
        queries: QueryStore[ArrayT],
        decisions: Sequence[Decision],
    ) -> None:
        self.decisions = tuple(decisions)
        self.num_streams: int = getattr(backbone, "num_streams", 1)
        self.efficient_tokens: int = getattr(backbone, "efficient_tokens", EFFICIENT_TOKENS)
        self._name = name
        self._parts: tuple[Backbone[ArrayT], Pooler[ArrayT]] | None = (backbone, pooler)
        self._finish = finish
        self._queries = queries
        self._lock = threading.Lock()
        self._running = 0  # batches
        self._is_closed = False

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        """Return the output of each prompt, in order.

        Raises MemoryError where the batch does not fit, and EngineError where the model gives NaN or infinity.
        """
        backbone, pooler = self._begin_use()
        try:
            outputs: list[PooledOutput | None] = [None] * len(prompts)
            for places in _by_modality(prompts):
                batch, order = lay_out([prompts[place] for place in places])
                for i, output in zip(order, self._run(backbone, pooler, batch), strict=True):
                    outputs[places[i]] = output
            return [output for output in outputs if output is not None]
        finally:
            self._end_use()

    def release(self, keys: Sequence[str]) -> None:
        """Forget the queries that are kept under these keys; some of them may be gone already."""
        self._queries.release(keys)

    @property
    def queries_kept(self) -> int:
        """The number of queries that wait for documents now."""
        return len(self._queries)

    def close(self) -> None:
        """Release the model, and close its backbone: now, or once the batch that still runs is done."""
        with self._lock:
            self._is_closed = True
            backbone = self._take_if_idle()
        if backbone is not None:
            close_backbone(backbone, self._name)
        self._queries.clear()

    def _begin_use(self) -> tuple[Backbone[ArrayT], Pooler[ArrayT]]:
        """Return backbone and pooler: they are not released before `_end_use`."""
        with self._lock:
            if self._is_closed or self._parts is None:
                raise EngineError(f"The engine of {self._name} is closed.")
            self._running += 1
            return self._parts

    def _end_use(self) -> None:
        with self._lock:
            self._running -= 1
            backbone = self._take_if_idle()
        if backbone is not None:
            close_backbone(backbone, self._name)

    def _take_if_idle(self) -> Backbone[ArrayT] | None:
        """Return the backbone of a closed model that nothing runs in any more, once; the lock is held."""
        if not self._is_closed or self._running or self._parts is None:
            return None
        [backbone, _], self._parts = self._parts, None
        return backbone

    def _run(self, backbone: Backbone[ArrayT], pooler: Pooler[ArrayT], batch: Batch) -> list[PooledOutput]:
        try:
            with inference():
                states = fit_states(run_batch(backbone, batch), batch)
                return self._finish_or_blame(states, self._pool(pooler, states, batch), batch)
        except RuntimeError as exc:
            if is_out_of_memory(exc):
                raise MemoryError(str(exc)) from exc
            raise
        except SystemExit as exc:  # of a plugin: it must not end the engine's thread
            raise EngineError("The engine, or what the task does to its outputs, asked to exit.") from exc

    def _finish_or_blame(self, states: States[ArrayT], pooled: PooledRows[ArrayT], batch: Batch) -> list[PooledOutput]:
        """Finish a batch. Blame the head for numbers that are not finite, where those that it was given are."""
        try:
            return self._finish(pooled, batch)
        except NotFiniteError as exc:
            given = states.rows if states.tokens is None else states.tokens
            if given is None or not _is_finite(given):
                raise
            raise EngineError(
                f"The head on {self._name} gave NaN or infinity, and the hidden states that it was given have none. "
                "That is the fault of the head, or of the plugin that brings it, not the prompt's."
            ) from exc

    def _pool(self, pooler: Pooler[ArrayT], states: States[ArrayT], batch: Batch) -> PooledRows[ArrayT]:
        try:
            return pooler(states, batch)
        except SystemExit as exc:  # must not end the engine's thread
            raise EngineError(f"The task's head asked to exit while it served {self._name}.") from exc


def _is_finite(array: AnyArray) -> bool:
    return bool(operations_of(array).is_finite(array)[0])


def close_backbone(backbone: Backbone[ArrayT], name: str) -> None:
    """Call a backbone's `close`, if it has one. A failure is logged: the rest of the model must still be closed.

    Args:
        backbone: what the engine gave.
        name: the model, for the message.
    """
    close: Callable[[], object] | None = getattr(backbone, "close", None)
    if close is None:
        return
    try:
        close()
    except (Exception, SystemExit):
        logger.exception("The engine of %s failed in close.", name)


def _by_modality(prompts: Sequence[EncodedPrompt]) -> list[list[int]]:
    """Return the places of the prompts of each modality, texts first: others may be scored against one of them."""
    if not [prompt for prompt in prompts if prompt.input is not None]:
        return [list(range(len(prompts)))] if prompts else []
    found: dict[str, list[int]] = {"text": []}
    for place, prompt in enumerate(prompts):
        found.setdefault(prompt.modality, []).append(place)
    return [places for places in found.values() if places]
