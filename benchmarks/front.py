"""Measures the server without a model: CPU time, latency and rate of one process at 1, 16 and 64 connections.

    python -m benchmarks.front

The model is the fake one with vectors of 384 numbers, and each request one text of 11 words, answered in base64. The
load is wrk's (Debian's package wrk), on another core. CPU time is the server's own, user and system, so that what else
the machine does weighs little in it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np

from poolkit.contract import Batch, PoolingTask, States, VectorSpec
from poolkit.server.run import run_server
from poolkit.settings.settings import Settings
from poolkit.testing import FAKE_MODEL, Fake, FakeBackbone, fake_model

WIDTH = 384
CONNECTIONS = (1, 16, 64)
ROUNDS = 3
SECONDS = 2
SCRIPT = """
wrk.method = "POST"
wrk.body = '{"input": "the quick brown fox jumps over a lazy dog reading papers", "encoding_format": "base64"}'
"""


class WideBackbone(FakeBackbone):
    """Gives every token the same row: the engine costs next to nothing."""

    def __init__(self, task: PoolingTask) -> None:
        model = replace(FAKE_MODEL, hidden_size=WIDTH, vector=VectorSpec(size=WIDTH, matryoshka_dimensions=()))
        super().__init__(task, fake=Fake(model=model))
        self._row = np.random.default_rng(0).standard_normal(WIDTH).astype(np.float32)

    def __call__(self, batch: Batch, /) -> States:
        """Return the rows."""
        return States(np.broadcast_to(self._row, (len(batch.token_ids), WIDTH)))


def serve() -> None:
    """Serve in this process, and print the port."""
    with fake_model("embed", backbone=WideBackbone, max_num_seqs=256) as served, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        run_server({served.name: served}, Settings(), listener)


@contextmanager
def server(core: int) -> Iterator[tuple[int, str]]:
    """Yield the process id and the address of a server on one core."""
    command = [sys.executable, "-m", "benchmarks.front", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, {core})
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        while True:
            try:
                httpx.get(f"{url}/readyz").raise_for_status()
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield process.pid, url
        process.terminate()


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a table: the median of a few rounds."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk).")
    from benchmarks.machine import hardware, versions  # import torch, which the server does without

    cores = sorted(os.sched_getaffinity(0))
    print(hardware())
    print(versions())
    print("connections | CPU µs a request | requests/s | p50 ms | p99 ms")
    with tempfile.TemporaryDirectory() as folder, server(cores[0]) as (pid, url):
        script = Path(folder) / "post.lua"
        script.write_text(SCRIPT)
        load = ["taskset", "-c", str(cores[-1]), wrk, "-t1", f"-d{SECONDS}", "--latency", "-s", str(script)]
        for connections in CONNECTIONS:
            rows = []
            for _ in range(ROUNDS):
                before = cpu_s(pid)
                command = [*load, f"-c{connections}", f"{url}/v1/embeddings"]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                if "Non-2xx" in output:
                    raise SystemExit(f"Not all answers were 200:\n{output}")
                count = int(re.search(r"(\d+) requests in", output)[1])
                latencies = [milliseconds(re.search(rf"{share}%\s+(\S+)", output)[1]) for share in (50, 99)]
                rows.append(((cpu_s(pid) - before) * 1e6 / count, count / SECONDS, *latencies))
            cpu, rate, p50, p99 = np.median(rows, axis=0)
            print(f"{connections:11} | {cpu:16.0f} | {rate:10.0f} | {p50:6.2f} | {p99:6.2f}")


def milliseconds(text: str) -> float:
    """Read a time of wrk's, such as 643.00us."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
