"""Answers requests in an interpreter of their own, the last one first."""

from __future__ import annotations

import json
import logging
from typing import cast

from poolkit.testing.checks import PluginUnderTest
from poolkit.testing.checks.bodies import Body
from poolkit.testing.checks.cases import cases
from poolkit.testing.child import take_question

__all__: list[str] = []


def main() -> None:
    """Answer the question on standard input: a plugin, and the requests of each of its cases."""
    question, answer = take_question(output_to=2)
    logging.disable()
    bodies = cast("dict[str, dict[str, list[Body]]]", question)["bodies"]
    answers = {
        case.where: [case.try_to_ask(body) for body in reversed(bodies[case.where])][::-1]
        for case in cases(PluginUnderTest.read(question))
    }
    with answer:
        answer.write(json.dumps(answers, default=repr).encode() + b"\n")


if __name__ == "__main__":
    main()
