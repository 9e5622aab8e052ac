"""Imports a plugin's modules, and answers what that changed and how its parts pickle. Run in a fresh interpreter."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import pkgutil
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping

import numpy as np
from pydantic import ValidationError

from poolkit.contract import PoolingTask
from poolkit.registry import ENGINES
from poolkit.testing.checks.plugin import ImportEffects, Pickled, PluginUnderTest, format_error
from poolkit.testing.child import take_question

__all__: list[str] = []

LONGEST_OUTPUT = 60
HEAVY = ("torch", "transformers", "uvicorn")

# What torch's global state was cannot be told without importing torch, which is a breach already.
STATE: Mapping[str, Callable[[], object]] = {
    "the running threads": lambda: sorted(thread.name for thread in threading.enumerate()),
    "the environment": lambda: dict(os.environ),
    "the working directory": os.getcwd,
    "sys.path": lambda: list(sys.path),
    "the root logger": lambda: (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
    "the signal handlers": lambda: [signal.getsignal(number) for number in sorted(signal.valid_signals())],
    "random's state": random.getstate,
    "numpy's random state": lambda: repr(np.random.get_state()),
    "numpy's error handling": np.geterr,
    "sys.excepthook": lambda: sys.excepthook,
}

EVENTS = {
    "socket.connect": "connects to",
    "subprocess.Popen": "starts a process:",
    "os.system": "starts a process:",
    "os.posix_spawn": "starts a process:",
    "os.mkdir": "makes the folder",
    "os.remove": "removes the file",
}
"""Audit events of what no import should do, and how they read."""


def main() -> None:
    """Answer the question on standard input, which plugin, with what importing it does."""
    with tempfile.TemporaryFile() as output:
        question, answer = take_question(output.fileno())
        os.dup2(output.fileno(), 2)
        plugin = PluginUnderTest.read(question)
        events: list[str] = []
        before = {name: read() for name, read in STATE.items()}
        sys.addaudithook(lambda event, arguments: _note(events, event, arguments))
        failure = None
        try:
            _import(plugin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin's own code may raise anything
            failure = type(error).__name__
        effects = [*events, *(f"changes {name}" for name, read in STATE.items() if read() != before[name])]
        sys.stdout.flush()
        sys.stderr.flush()
        output.seek(0)
        if printed := output.read().decode(errors="replace"):
            effects.append(f"prints {printed[:LONGEST_OUTPUT]!r}")
        heavy = [name for name in HEAVY if name in sys.modules]
        pickles = {} if failure else _pickle(plugin)
    with answer:
        effects_told = ImportEffects(heavy=heavy, effects=effects, failure=failure, pickles=pickles)
        answer.write(json.dumps(effects_told).encode() + b"\n")


def _import(plugin: PluginUnderTest) -> None:
    """Import what the entry points name, and the processors of tasks."""
    for entry in plugin.installed.entry_points:
        if entry.group != ENGINES:
            target = pkgutil.resolve_name(entry.value)
            for operation in target.operations if isinstance(target, PoolingTask) else ():
                pkgutil.resolve_name(operation.io_processor)


def _pickle(plugin: PluginUnderTest) -> dict[str, Pickled]:
    pickles: dict[str, Pickled] = {}
    try:
        parts = plugin.parts
    except ValidationError:  # the check settings_can_be_given says more
        return {}
    for name, part in parts.items():
        try:
            pickles[name] = Pickled(data=base64.b64encode(pickle.dumps(part)).decode(), error="")
        except Exception as error:  # noqa: BLE001 - pickling runs the plugin's own code
            pickles[name] = Pickled(data="", error=format_error(error))
    return pickles


def _note(effects: list[str], event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, mode, _ = arguments
        if isinstance(path, str) and isinstance(mode, str) and not set(mode).isdisjoint("wax+"):
            effects.append(f"writes the file {path!r}")
    elif event in EVENTS:
        subject = arguments[1] if event == "socket.connect" else arguments[0]
        effects.append(f"{EVENTS[event]} {subject!r}")


if __name__ == "__main__":
    main()
