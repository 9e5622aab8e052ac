"""Our side of the runners' protocol: see `runners/runner_protocol.py`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare.environments import UnavailableError
from benchmarks.compare.models import Model
from benchmarks.compare.peer import Peer, Setting
from benchmarks.compare.peers import RUNNERS
from benchmarks.compare.processes import Process, log_path
from benchmarks.compare.texts import Call
from benchmarks.machine import threads

__all__ = ["Runner"]


class Runner:
    """A peer that has loaded a model offline.

    Args:
        peer: whose Python and script are used.
        model: what is asked of it.
        folder: its files.
        load: what it is loaded with.
        device: "cpu" or "cuda".

    Raises:
        UnavailableError: it cannot be installed or loaded.
    """

    def __init__(self, peer: Peer, model: Model, folder: Path, load: Mapping[str, object], *, device: str) -> None:
        name = f"{model.name}, {peer.name}"
        self._log = log_path(name)
        folder = peer.prepare(model, folder)
        self._process = Process(
            [str(peer.environment.python()), str(RUNNERS / peer.runner)],
            name=name,
            variables=peer.variables,
            has_pipes=True,
        )
        order = {
            "model": str(folder),
            "work": model.work,
            "load": load,
            "threads": threads(),
            "device": device,
        }
        try:
            answer = self._ask(order)
        except UnavailableError:
            self.close()
            raise
        self.facts: Mapping[str, object] = answer["facts"]
        self.load_s: float = answer["load_s"]

    def seconds(self, call: Call, setting: Setting, *, each: bool = False) -> Sequence[float]:
        """Return the seconds that each call took: one for all texts, or one a text or a query."""
        return self._ask({"call": call, "setting": setting.call, "each": each, "returns": False})["seconds"]

    def rows(self, call: Call, setting: Setting) -> NDArray[np.float32]:
        """Return the vectors, (texts, dim), or the scores, (pairs,)."""
        answer = self._ask({"call": call, "setting": setting.call, "each": False, "returns": True})
        rows = np.frombuffer(base64.b64decode(answer["rows"]), np.float32)
        return rows.reshape(-1, answer["width"]) if answer["width"] else rows

    def peak_memory_mb(self) -> float:
        """Return the largest resident memory of its processes so far."""
        return self._process.peak_memory_mb()

    def close(self) -> None:
        """End its processes."""
        self._process.close()

    def _ask(self, order: Mapping[str, object]) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UnavailableError(f"its process died: {_last_line(self._log)}")
        answer = json.loads(line)
        if "error" in answer:
            raise UnavailableError(answer["error"])
        return answer


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
