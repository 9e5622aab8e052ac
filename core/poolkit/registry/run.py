"""The seam `run`: wrappers between tokenization and the model, each a generator that the pipeline drives.

A wrapper's `run` is given tokenized prompts, yields those that shall run, is sent one outcome for each, and returns one
outcome for each prompt that it was given. No thread waits between its two halves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from poolkit.contract import EncodedPrompt, Group, Outcome, PooledOutput
from poolkit.registry.call import Part, begin, finish
from poolkit.registry.hooks import RUN, Run, RunGenerator

__all__ = ["RunWrapper", "Running", "start_run"]


@dataclass(frozen=True, slots=True, eq=False)
class RunWrapper:
    """A wrapper that surrounds the model. Each of its halves is blamed and timed as a call of a hook is.

    Attributes:
        run: its generator function.
        takes_long_prompts: True if it is given prompts that are longer than the model's maximum, and splits them.
        part: its part in the operation.
    """

    run: Run
    takes_long_prompts: bool
    part: Part

    def begin(self, encoded: Sequence[EncodedPrompt]) -> tuple[RunGenerator, Sequence[EncodedPrompt]]:
        """Run the wrapper up to its yield; return it and the prompts that shall run."""

        def work() -> tuple[RunGenerator, Sequence[EncodedPrompt]]:
            generator = self.run(encoded)
            to_run = begin(generator)
            if not isinstance(to_run, Sequence) or not all(isinstance(prompt, EncodedPrompt) for prompt in to_run):
                raise TypeError("yielded something else than a sequence of EncodedPrompt")
            _check_groups(to_run, given=encoded)
            return generator, to_run

        return self.part.call(RUN, work)

    def end(self, generator: RunGenerator, outcomes: Sequence[Outcome], *, expected: int) -> Sequence[Outcome]:
        """Send the outcomes in; return one for each of the `expected` prompts that the wrapper was given."""

        def work() -> Sequence[Outcome]:
            results = finish(generator, outcomes)
            if not isinstance(results, Sequence) or len(results) != expected:
                counted = f"{len(results)} outcomes" if isinstance(results, Sequence) else type(results).__name__
                raise TypeError(f"returned {counted} for {expected} prompts")
            if not all(isinstance(result, PooledOutput | Exception) for result in results):
                raise TypeError("returned something else than PooledOutput or exceptions")
            return results

        return self.part.call(RUN, work)


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


def _check_groups(to_run: Sequence[EncodedPrompt], *, given: Sequence[EncodedPrompt]) -> None:
    sizes = _group_sizes(given)
    for group, size in _group_sizes(to_run).items():
        if size != sizes[group]:
            raise TypeError(
                f"yielded {size} prompts of a group of {sizes[group]}. A group runs as a whole, or not at all"
            )


def _group_sizes(prompts: Sequence[EncodedPrompt]) -> Counter[Group]:
    return Counter(prompt.group for prompt in prompts if prompt.group is not None)
