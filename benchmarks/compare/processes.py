"""Processes of peers: their environment, their logs, their memory, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from benchmarks.compare.environments import BENCH
from benchmarks.machine import threads

__all__ = ["Process", "log_path"]

STOP_TIMEOUT_S = 20.0


def log_path(name: str) -> Path:
    """Return where a process called `name` writes what it has to say."""
    kept = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
    return BENCH / "logs" / f"{kept}.log"


class Process:
    """A process with all that it starts, in a session of its own.

    Args:
        command: the interpreter and its arguments.
        name: of its log.
        variables: added to the environment, in which every process has the same number of threads.
        has_pipes: standard input and output are ours; else the output is in the log.
    """

    def __init__(
        self, command: Sequence[str], *, name: str, variables: Mapping[str, str], has_pipes: bool = False
    ) -> None:
        path = log_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if has_pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if has_pipes else log,
                stderr=log,
                env={**os.environ, **_variables(), **variables},
                start_new_session=True,
                text=True,
            )

    @property
    def stdin(self) -> IO[str]:
        """The pipe to its standard input."""
        assert self._popen.stdin is not None
        return self._popen.stdin

    @property
    def stdout(self) -> IO[str]:
        """The pipe from its standard output."""
        assert self._popen.stdout is not None
        return self._popen.stdout

    @property
    def is_alive(self) -> bool:
        """True until it has ended."""
        return self._popen.poll() is None

    def peak_memory_mb(self) -> float:
        """Return the largest resident memory that each process of the tree has had, added up. Linux only."""
        return sum(map(_peak_kb, _tree(self._popen.pid))) / 1024

    def close(self) -> None:
        """End it and all that it started: with SIGTERM, then with SIGKILL."""
        tree = list(_tree(self._popen.pid))
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
        self._popen.terminate()
        try:
            self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pid in tree[1:]:
            _kill(pid)


def _variables() -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(threads()),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
    }


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _peak_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
