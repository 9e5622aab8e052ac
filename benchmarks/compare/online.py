"""Servers: seconds until the first answer, latency and throughput by the number of clients, and memory."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median, quantiles

from benchmarks.compare.environments import UnavailableError
from benchmarks.compare.models import MODELS, model_folder
from benchmarks.compare.offline import Missing, Say
from benchmarks.compare.peer import Peer, Request, Server, Setting
from benchmarks.compare.processes import Process, log_path
from benchmarks.compare.texts import LOADS, Corpus
from benchmarks.machine import ROOT

__all__ = ["CLIENTS", "MODEL", "Point", "Running", "Start", "generate_load", "measure_online", "start_server"]

CLIENTS = (1, 16, 64, 256)
MODEL = MODELS["minilm"]
WARM_UP_CLIENTS = 16
REQUESTS = 1000
"""Different ones, which are then repeated."""
READY_TIMEOUT_S = 300.0
POLL_S = 0.02
SERVERS = "servers"


@dataclass(frozen=True, slots=True)
class Point:
    """One server under one load, as medians over the rounds.

    Attributes:
        load: the kind of the requests.
        clients: connections that ask at the same time.
        requests_per_s: answered with 200.
        p50_ms: the median of the latencies.
        p99_ms: of a hundred latencies one is longer.
        failures: in all rounds.
    """

    peer: str
    is_ours: bool
    load: str
    clients: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failures: int
    example: str


@dataclass(frozen=True, slots=True)
class Start:
    """A server's start and its memory.

    Attributes:
        ready_s: from the command to the first answer with vectors, the median of the starts.
        peak_memory_mb: of all its processes, after all loads.
    """

    peer: str
    is_ours: bool
    setting: str
    ready_s: float
    starts_s: Sequence[float]
    peak_memory_mb: float


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers, and the seconds that each of its starts took."""

    peer: Peer
    server: Server
    setting: Setting
    process: Process
    port: int
    starts_s: Sequence[float]


def measure_online(
    peers: Sequence[Peer],
    settings: Mapping[str, Setting],
    corpus: Corpus,
    *,
    clients: Sequence[int],
    seconds: float,
    rounds: int,
    starts: int,
    say: Say,
) -> tuple[list[Point], list[Start], list[Missing]]:
    """Measure the peers that serve, all with MiniLM.

    Args:
        peers: those without a server are told as missing.
        settings: the best setting offline by the peer's name; where there is none, its first.
        corpus: the texts.
        clients: numbers of clients, one after the other.
        seconds: of a load in a round.
        rounds: of all loads, servers in turn.
        starts: how often each server is started.
        say: takes a line about what is being done.
    """
    running: list[Running] = []
    missing: list[Missing] = []
    model = str(model_folder(MODEL))
    try:
        for peer in peers:
            say(f"{SERVERS}: starting {peer.name}")
            try:
                running.append(
                    start_server(peer, settings.get(peer.name, peer.settings[0]), model, corpus, starts=starts)
                )
            except UnavailableError as error:
                say(f"  {error}")
                missing.append(Missing(SERVERS, peer.name, str(error)))
        points = []
        for load in LOADS:
            _measure(running, model, corpus.requests(load), load, WARM_UP_CLIENTS, seconds=seconds, rounds=1)
            for number in clients:
                say(f"{SERVERS}: {load}, {number} clients")
                points += _measure(running, model, corpus.requests(load), load, number, seconds=seconds, rounds=rounds)
        return points, [_started(one) for one in running], missing
    finally:
        for one in running:
            one.process.close()


def start_server(peer: Peer, setting: Setting, model: str, corpus: Corpus, *, starts: int) -> Running:
    """Start a server so many times and leave the last one running.

    Raises:
        UnavailableError: there is none, or it gives no answer.
    """
    if peer.server is None:
        raise UnavailableError("it has no server")
    request = peer.server.request(corpus.short[:1], model)
    python = str(peer.environment.python())
    starts_s: list[float] = []
    while True:
        port = _free_port()
        name = f"server, {peer.name}"
        command = [python, *peer.server.command(model, port, setting.load)]
        start = time.perf_counter()
        process = Process(command, name=name, variables=peer.variables)
        try:
            _wait_until_ready(process, request, port, log=log_path(name))
        except UnavailableError:
            process.close()
            raise
        starts_s.append(time.perf_counter() - start)
        if len(starts_s) == starts:
            return Running(peer, peer.server, setting, process, port, starts_s)
        process.close()


def _wait_until_ready(process: Process, request: Request, port: int, *, log: Path) -> None:
    """Return once a request is answered with vectors."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    path, body = request
    found = "it does not listen"
    while process.is_alive and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            time.sleep(POLL_S)
            continue
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.OK:
            return
        found = f"it answers {answer.status}: {content[:200].decode(errors='replace')}"
        if answer.status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            break
        time.sleep(POLL_S)
    last = (log.read_text("utf-8", errors="replace").strip().splitlines() or [""])[-1]
    raise UnavailableError(found if process.is_alive else f"its server ended: {last}")


def _measure(
    running: Sequence[Running],
    model: str,
    inputs: Sequence[Sequence[str]],
    load: str,
    clients: int,
    *,
    seconds: float,
    rounds: int,
) -> list[Point]:
    answers: dict[str, list[dict]] = {one.peer.name: [] for one in running}
    for number in range(rounds):
        for one in running if number % 2 else reversed(running):
            requests = [one.server.request(texts, model) for texts in islice(inputs, REQUESTS)]
            order = {"port": one.port, "requests": requests, "clients": clients, "seconds": seconds}
            answers[one.peer.name].append(generate_load(order))
    return [_point(one.peer, load, clients, answers[one.peer.name]) for one in running]


def generate_load(order: Mapping[str, object]) -> dict:
    """Run the load generator and return what it measured: see `load`."""
    command = [sys.executable, "-m", "benchmarks.compare.load"]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def _point(peer: Peer, load: str, clients: int, answers: Sequence[dict]) -> Point:
    answered = [answer for answer in answers if answer["latencies_ms"]]
    percentiles = [quantiles(answer["latencies_ms"] * 2, n=100) for answer in answered]
    return Point(
        peer=peer.name,
        is_ours=peer.is_ours,
        load=load,
        clients=clients,
        requests_per_s=median(len(answer["latencies_ms"]) / answer["seconds"] for answer in answers),
        p50_ms=median([each[49] for each in percentiles] or [float("nan")]),
        p99_ms=median([each[98] for each in percentiles] or [float("nan")]),
        failures=sum(answer["failures"] for answer in answers),
        example=next((answer["example"] for answer in answers if answer["example"]), ""),
    )


def _started(one: Running) -> Start:
    return Start(
        peer=one.peer.name,
        is_ours=one.peer.is_ours,
        setting=str(one.setting),
        ready_s=median(one.starts_s),
        starts_s=one.starts_s,
        peak_memory_mb=one.process.peak_memory_mb(),
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
