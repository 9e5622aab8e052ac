"""Runs a module of the kit in a fresh interpreter that sees the same installed packages and dies with its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

__all__ = ["Child", "DiedError", "ask_child", "take_question"]

READ_SIZE = 4096


class DiedError(Exception):
    """The interpreter ended without an answer; the message says how."""


class Child:
    """`python -m MODULE`, given a question and read line by line; both are JSON. Killed at the end of the block.

    Args:
        module: calls `take_question` first.
        question: for its standard input.
        environment: variables to add to this process's.
    """

    def __init__(self, module: str, question: object, *, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end of the block
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-B", "-W", "ignore", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `read` tells how the child ended
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()  # and not closed: the child ends when this process does

    def __enter__(self) -> Self:
        """Return the child."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill it, unless it has ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def read(self, *, limit_s: float) -> object:
        """Return the next line of its answer.

        Raises:
            DiedError: none came within so many seconds, or at all.
        """
        assert self._process.stdout is not None
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            return json.loads(line)
        if is_late.is_set():
            raise DiedError(f"a fresh interpreter gave no answer in {limit_s:g} s")
        code = self._process.wait()
        self._errors.seek(0)
        reason = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        raise DiedError(": ".join([f"a fresh interpreter ended with exit code {code}", *reason]))


def ask_child(module: str, question: object, *, limit_s: float, environment: Mapping[str, str] | None = None) -> object:
    """Return the one line that `python -m module` answers to a question within so many seconds.

    Raises:
        DiedError: it ended without an answer.
    """
    with Child(module, question, environment=environment) as child:
        return child.read(limit_s=limit_s)


def take_question(output_to: int) -> tuple[object, BinaryIO]:
    """Return the question, and the file to write lines of the answer to. Call it first.

    From now on this process ends when its parent does, whatever a plugin prints goes to the file descriptor
    `output_to` and cannot get into the answer, and a plugin that reads from standard input finds nothing there.
    """
    question = json.loads(sys.stdin.readline())
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(output_to, 1)
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(parent,), name="poolkit-testing-parent", daemon=True).start()
    return question, answer


def _end_with(parent: int) -> None:
    """End this process once nobody holds the other end of the pipe."""
    while os.read(parent, READ_SIZE):
        pass
    os._exit(1)
