"""`python -m poolkit.testing`: runs the checks of the conformance kit for `check_plugin`, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import BinaryIO

from poolkit.testing.checks import CHECKS, PluginUnderTest
from poolkit.testing.child import take_question
from poolkit.testing.kit import Question
from poolkit.testing.results import CheckResult
from poolkit.testing.runner import Runner, needs_first

__all__: list[str] = []

TOO_LATE = 3
"""The exit code after a check that took too long."""


def main() -> None:
    """Answer with two lines for each check that has no result yet: its name before it runs, and its result."""
    given, answer = take_question(output_to=2)
    question = Question.read(given)
    plugin = PluginUnderTest.read(given)
    logging.disable()  # what the pipeline logs of a failed hook stands in the results

    def give_up(result: CheckResult) -> None:
        _write(answer, dataclasses.asdict(result))
        os._exit(TOO_LATE)

    runner = Runner.of(plugin, limit_s=question.limit_s, ended_in=question.ended_in, give_up=give_up)
    runner.results.update({result.name: result for result in question.results})
    for check in needs_first(CHECKS):
        if check.name not in runner.results:
            _write(answer, check.name)
            _write(answer, dataclasses.asdict(runner.run(check)))
    _write(answer, None)
    os._exit(0)  # without waiting for what the plugin may have left running


def _write(answer: BinaryIO, line: object) -> None:
    answer.write(json.dumps(line).encode() + b"\n")
    answer.flush()


if __name__ == "__main__":
    main()
