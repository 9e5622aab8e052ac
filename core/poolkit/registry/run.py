"""The seam `run`: wrappers between tokenization and the model, each a generator that the pipeline drives.

A wrapper's `run` is given tokenized prompts, yields those that shall run, is sent one outcome for each, and returns one
outcome for each prompt that it was given. No thread waits between its two halves.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

from poolkit.contract import EncodedPrompt, Outcome, PooledOutput
from poolkit.errors import HookError, RequestError
from poolkit.registry.call import Observers
from poolkit.registry.discover import Plugin
from poolkit.registry.hooks import RUN, Run

__all__ = ["RunWrapper", "Running", "start_run"]

logger = logging.getLogger(__name__)

RunGenerator: TypeAlias = Generator[Sequence[EncodedPrompt], Sequence[Outcome], Sequence[Outcome]]


@dataclass(frozen=True, slots=True, eq=False)
class RunWrapper:
    """A wrapper that surrounds the model.

    Attributes:
        function: its `run`.
        takes_long_prompts: True if it is given prompts that are longer than the model's maximum, and splits them.
        plugin: whose it is.
        subject: its name in messages.
        task: the name of the task that is served.
        observers: are told how long its halves take.
    """

    function: Run
    takes_long_prompts: bool
    plugin: Plugin
    subject: str
    task: str
    observers: Observers

    def begin(self, encoded: Sequence[EncodedPrompt]) -> tuple[RunGenerator, Sequence[EncodedPrompt]]:
        """Run the wrapper up to its yield; return it and the prompts that shall run.

        Raises:
            RequestError: the wrapper refuses the prompts.
            HookError: it failed.
        """
        with self._blame():
            generator = self.function(encoded)
            try:
                to_run = next(generator)
            except StopIteration:
                raise TypeError("run ended without a yield") from None
            if not isinstance(to_run, Sequence) or not all(isinstance(prompt, EncodedPrompt) for prompt in to_run):
                raise TypeError("run yielded something else than a sequence of EncodedPrompt")
            return generator, to_run

    def end(self, generator: RunGenerator, outcomes: Sequence[Outcome], *, expected: int) -> Sequence[Outcome]:
        """Send the outcomes in; return one for each of the `expected` prompts that the wrapper was given.

        Raises:
            RequestError: the wrapper refuses the prompts.
            HookError: it failed.
        """
        with self._blame():
            try:
                generator.send(outcomes)
            except StopIteration as stop:
                results = stop.value
            else:
                generator.close()
                raise TypeError("run yielded more than once")
            if not isinstance(results, Sequence) or len(results) != expected:
                counted = f"{len(results)} outcomes" if isinstance(results, Sequence) else type(results).__name__
                raise TypeError(f"run returned {counted} for {expected} prompts")
            if not all(isinstance(result, PooledOutput | Exception) for result in results):
                raise TypeError("run returned something else than PooledOutput or exceptions")
            return results

    @contextmanager
    def _blame(self) -> Iterator[None]:
        """Pass on RequestError; blame the plugin for everything else. The cause stays in the log."""
        started = perf_counter()
        try:
            yield
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            message = f"{self.subject} failed in {RUN}."
            logger.exception("%s", message)
            raise HookError(message, plugin=self.plugin.name, task=self.task, hook=RUN) from error
        finally:
            self.observers.tell(RUN, self.plugin.name, perf_counter() - started)


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """Some prompts between the two halves of the wrappers around the model.

    Attributes:
        to_run: the prompts that the innermost wrapper yielded.
    """

    to_run: Sequence[EncodedPrompt]
    _open: tuple[tuple[RunWrapper, RunGenerator, int], ...]

    def finish(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return one outcome for each prompt that was given to the outermost wrapper.

        Raises:
            RequestError: a wrapper refuses the prompts.
            HookError: a wrapper failed.
        """
        for wrapper, generator, expected in reversed(self._open):
            outcomes = wrapper.end(generator, outcomes, expected=expected)
        return outcomes


def start_run(wrappers: Sequence[RunWrapper], encoded: Sequence[EncodedPrompt]) -> Running:
    """Run the first half of every wrapper, outermost first.

    Raises:
        RequestError: a wrapper refuses the prompts.
        HookError: a wrapper failed.
    """
    opened: list[tuple[RunWrapper, RunGenerator, int]] = []
    for wrapper in wrappers:
        given = len(encoded)
        generator, encoded = wrapper.begin(encoded)
        opened.append((wrapper, generator, given))
    return Running(encoded, tuple(opened))
