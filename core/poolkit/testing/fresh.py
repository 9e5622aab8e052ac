"""Runs a module of the kit in a fresh interpreter that sees the same installed packages as this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

__all__ = ["DiedError", "run_fresh", "take_question"]


class DiedError(Exception):
    """The interpreter ended without an answer; the message says how."""


def run_fresh(module: str, question: object, *, limit_s: float) -> object:
    """Return what `python -m module` answers to a question within so many seconds; both are JSON.

    Raises:
        DiedError: it ended without an answer.
    """
    command = [sys.executable, "-P", "-B", "-W", "ignore", "-m", module]
    path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            input=json.dumps(question).encode(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path},
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DiedError(f"a fresh interpreter gave no answer in {limit_s:g} s") from error
    if not done.stdout:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DiedError(": ".join([f"a fresh interpreter ended with exit code {done.returncode}", *reason]))
    return json.loads(done.stdout)


def take_question(output_to: int) -> tuple[object, BinaryIO]:
    """Return the question, and the file to write the answer to.

    From now on whatever a plugin prints goes to the file descriptor `output_to`, and cannot get into the answer.
    """
    question = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(output_to, 1)
    return question, answer
