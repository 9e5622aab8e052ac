"""Tokenizes a round's prompts, slice by slice, and takes each slice through the wrappers around the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TypeAlias

from poolkit.contract import (
    EncodedPrompt,
    Group,
    ModalityPrompt,
    Outcome,
    Prepared,
    Prompt,
    ResolvedParams,
    TemplatedText,
    TextPair,
    TextToken,
)
from poolkit.engine.job import Job
from poolkit.engine.scheduler import Scheduler
from poolkit.engine.stages import Stage, Stages
from poolkit.errors import RequestError
from poolkit.registry import RunWrapper, start_run
from poolkit.tokenization import Encoder, TokenizedTexts

__all__ = ["Slice", "Tokenization", "are_small"]

SMALL_PROMPTS = 32

InWorker: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs a function in a worker thread."""


class Tokenization:
    """Tokenizes the prompts of one round, slice by slice, and hands each slice on to the scheduler.

    Args:
        job: the job of the round.
        prepared: what was prepared.
        params: of each prompt, resolved.
        known: texts that were tokenized before.
        wrappers: those around the model, outermost first.
        encoder: tokenizes.
        scheduler: runs prompts.
        in_worker: runs a function in a worker thread.
        stages: is told how long tokenizing takes.
    """

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        params: Sequence[ResolvedParams],
        known: TokenizedTexts,
        wrappers: Sequence[RunWrapper],
        *,
        encoder: Encoder,
        scheduler: Scheduler,
        in_worker: InWorker,
        stages: Stages,
    ) -> None:
        self._job = job
        self._stages = stages
        self._refused = prepared.refused
        # A processor that changes its list later on changes nothing here; what it refuses is not read.
        self._prompts = ["" if index in self._refused else prompt for index, prompt in enumerate(prepared.prompts)]
        self._groups = _make_groups(prepared)
        self._with_text_tokens = prepared.with_text_tokens
        self._params = params
        self._known = known
        self._wrappers = wrappers
        self._takes_long = any(wrapper.takes_long_prompts for wrapper in wrappers)
        self._encoder = encoder
        self._scheduler = scheduler
        self._in_worker = in_worker

    def run(self, start: int, stop: int) -> None:
        """Tokenize the prompts from `start` to `stop`, and hand them on. Never raises: the job is told."""
        if self._job.is_over:
            return
        try:
            self._run(start, stop)
        except Exception as error:  # noqa: BLE001 - the job must be told whatever happens in this thread
            self._job.settle([(index, error) for index in range(start, stop)])

    def _run(self, start: int, stop: int) -> None:
        started = perf_counter()
        encoded = self._encoder.encode(
            self._prompts[start:stop],
            self._params[start:stop],
            first_index=start,
            refuses_long=not self._takes_long,
            with_text_tokens=self._with_text_tokens,
            known=self._known,
        )
        self._stages.add(Stage.TOKENIZE, perf_counter() - started)
        if self._with_text_tokens:
            self._job.keep_text_tokens(_text_tokens(encoded))
        if not self._wrappers:
            encoded = [
                self._encoder.read(prompt)
                if isinstance(prompt, EncodedPrompt) and prompt.unread is not None
                else prompt
                for prompt in encoded
            ]
        for index in self._refused.keys() & range(start, stop):
            encoded[index - start] = self._refused[index]
        if self._groups is not None:
            encoded = _group(encoded, self._groups[start:stop])
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
        fitted = self._fitted = _group(
            [encoder.fit(prompt) if prompt.unread is None else prompt for prompt in self._outer.to_run],
            [prompt.group for prompt in self._outer.to_run],
        )
        fitting = [prompt for prompt in fitted if isinstance(prompt, EncodedPrompt)]
        self._inner = start_run([wrapper for wrapper in wrappers if not wrapper.takes_long_prompts], fitting)
        self._outcomes: list[Outcome | None] = [None] * len(self._inner.to_run)
        self._missing = len(self._outcomes)

    def start(self, encoder: Encoder) -> list[tuple[int, EncodedPrompt]]:
        """Return the prompts that shall run, each with its place; those that cannot have their outcome then."""
        ready: list[tuple[int, EncodedPrompt]] = []
        refused: list[tuple[int, Outcome]] = []
        to_run = self._inner.to_run
        read = _group([encoder.read(prompt) for prompt in to_run], [prompt.group for prompt in to_run])
        for place, prompt in enumerate(read):
            if isinstance(prompt, RequestError):
                refused.append((place, prompt))
            else:
                ready.append((place, prompt))
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


def _text_tokens(encoded: Sequence[EncodedPrompt | RequestError]) -> dict[int, Sequence[TextToken]]:
    return {prompt.index: prompt.text_tokens for prompt in encoded if isinstance(prompt, EncodedPrompt)}


def _make_groups(prepared: Prepared) -> list[Group | None] | None:
    """Return the group of each prompt."""
    if prepared.groups is None:
        return None
    groups: dict[Hashable, Group] = {}
    return [None if key is None else groups.setdefault(key, Group()) for key in prepared.groups]


def _group(
    encoded: Sequence[EncodedPrompt | RequestError], groups: Sequence[Group | None]
) -> list[EncodedPrompt | RequestError]:
    """Return prompts with their groups; where one of a group cannot run, none of it does."""
    if not any(groups):
        return list(encoded)
    errors: dict[Group, RequestError] = {}
    for prompt, group in zip(encoded, groups, strict=True):
        if group is not None and isinstance(prompt, RequestError):
            errors.setdefault(group, prompt)
    grouped: list[EncodedPrompt | RequestError] = []
    for prompt, group in zip(encoded, groups, strict=True):
        if group is None or isinstance(prompt, RequestError):
            grouped.append(prompt)
        else:
            grouped.append(errors[group] if group in errors else replace(prompt, group=group))
    return grouped


def are_small(prompts: Sequence[Prompt], characters: int) -> bool:
    """Return True if prompts are few, and have no more than so many characters to tokenize together."""
    if len(prompts) > SMALL_PROMPTS:
        return False
    counts = [_characters(prompt) for prompt in prompts]
    return None not in counts and sum(count or 0 for count in counts) <= characters


def _characters(prompt: Prompt) -> int | None:
    """Return the characters that are to be tokenized; None where only reading would tell."""
    match prompt:
        case str():
            return len(prompt)
        case TextPair():
            return len(prompt.first) + len(prompt.second)
        case TemplatedText():
            return len(prompt.prefix) + len(prompt.text) + len(prompt.suffix)
        case ModalityPrompt():
            return None
        case _:
            return 0
