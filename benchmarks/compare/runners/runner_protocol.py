"""The runners' side of the protocol: JSON lines in on standard input, JSON lines out on standard output.

A runner is executed by its peer's own Python, so that this file needs nothing but numpy.

    in   {"model": …, "work": …, "load": {…}, "threads": …}     once
    out  {"load_s": …, "facts": {…}}
    in   {"call": {…}, "setting": {…}, "each": …, "returns": …}  any number of times
    out  {"seconds": […], "rows": "base64 of float32", "width": …}
    out  {"error": "…"}                                         in place of either
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import traceback

import numpy as np


def serve(load):
    """Load what the first line says with `load(order)`, then answer calls until standard input ends.

    `load` returns a function `run(texts, **setting)` or `run((query, documents), **setting)` that returns rows, and a
    dictionary of facts for the report.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def answer(content):
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    run = None
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        try:
            if run is None:
                start = time.perf_counter()
                run, facts = load(order)
                answer({"load_s": time.perf_counter() - start, "facts": facts})
            else:
                answer(_timed(run, order))
        except Exception as error:  # noqa: BLE001 - the report says what a peer failed with
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            answer({"error": f"{type(error).__name__}: {lines[0]}"})


def _timed(run, order):
    call, setting = order["call"], order["setting"]
    if "queries" in call:
        arguments = list(zip(call["queries"], call["documents"]))
    else:
        arguments = [[text] for text in call["texts"]] if order["each"] else [call["texts"]]
    seconds, rows = [], []
    for argument in arguments:
        start = time.perf_counter()
        found = run(argument, **setting)
        seconds.append(time.perf_counter() - start)
        rows.append(found)
    answer = {"seconds": seconds}
    if order["returns"]:
        whole = np.concatenate([np.asarray(found, np.float32) for found in rows])
        answer["rows"] = base64.b64encode(np.ascontiguousarray(whole).tobytes()).decode()
        answer["width"] = whole.shape[1] if whole.ndim == 2 else 0
    return answer


def packages(*names):
    """Return the versions of the installed distributions among `names`."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
