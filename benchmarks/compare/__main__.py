"""Measures poolkit and its peers in one run and writes the results, with their conditions, into `benchmarks/results`.

    python -m benchmarks.compare                       everything; about an hour
    python -m benchmarks.compare --quick               the same with less work; about a quarter of it
    python -m benchmarks.compare --only offline        one part: offline or online
    python -m benchmarks.compare --models minilm       some of the models
    python -m benchmarks.compare --peers vllm          some of the peers; poolkit always takes part
    python -m benchmarks.compare --engine default torch cpu/int8

Each peer lives in a virtual environment of its own under `.bench/`, which is made when it is first needed. One that
cannot be installed or run is in the tables with the reason.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare.models import MODELS
from benchmarks.compare.offline import COMPARED, Measured, Missing, measure_offline
from benchmarks.compare.online import CLIENTS, Point, Start, measure_online
from benchmarks.compare.peer import Peer
from benchmarks.compare.peers import PEERS, make_peers, poolkit
from benchmarks.compare.report import RESULTS, Results, render, write
from benchmarks.compare.texts import DOCUMENTS, make_corpus
from benchmarks.machine import conditions

PARTS = ("offline", "online")
ALONE = 60
"""Short texts that are embedded one by one in each round."""
DEFAULT = "default"
"""The name of poolkit's own choice of engine and dtype in `--engine`."""


def main() -> None:
    """Run what the options name, write the results and print the tables."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the peers' processes are ended as well
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {line}", file=sys.stderr, flush=True)

    peers = _peers(options)
    chosen = [MODELS[name] for name in options.models]
    corpus = make_corpus(max(_texts(options, name) for name in options.models))
    offline: list[Measured] = []
    missing: list[Missing] = []
    if "offline" in options.only:
        for model in chosen:
            found, absent = measure_offline(
                model,
                peers,
                corpus,
                size=_size(options, model.name),
                rounds=options.rounds,
                alone=ALONE // 3 if options.quick else ALONE,
                device=options.device,
                say=say,
            )
            offline += found
            missing += absent
    points: list[Point] = []
    starts: list[Start] = []
    if "online" in options.only:
        points, starts, absent = measure_online(
            [peer for peer in peers if peer.server is not None or options.peers is None],
            {one.peer: one.setting for one in offline if one.model == "minilm"},
            corpus,
            clients=options.clients,
            seconds=1.5 if options.quick else 5,
            rounds=2 if options.quick else options.rounds,
            starts=1 if options.quick else 3,
            say=say,
        )
        missing += absent
    results = Results(conditions=conditions(), offline=offline, online=points, starts=starts, missing=missing)
    for path in write(results, options.results):
        say(f"wrote {path}")
    print(render(results, image="plot.png"))


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts (default: all)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="default: all")
    parser.add_argument("--peers", nargs="*", default=None, metavar="NAME", help=f"parts of: {', '.join(PEERS)}")
    parser.add_argument(
        "--engine",
        nargs="+",
        default=[DEFAULT],
        metavar="ENGINE[/DTYPE]",
        help="of poolkit, a row each: default, torch, openvino, cpu, cpu/int8, …",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="a quarter of the work")
    parser.add_argument("--clients", nargs="+", type=int, default=CLIENTS, help="default: 1 16 64 256")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder they go to")
    parser.add_argument("--rounds", type=int, help="default: 5, quick 3")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    return options


def _peers(options: argparse.Namespace) -> Sequence[Peer]:
    """Return sentence-transformers in float32 first, which the others' rows are compared with, and poolkit last."""
    wanted = options.peers
    theirs = [
        peer
        for number, peer in enumerate(make_peers(options.device))
        if wanted is None or number == 0 or any(name.lower() in peer.name.lower() for name in wanted)
    ]
    ours = [poolkit(*_engine(name)) for name in options.engine]
    return [*theirs, *ours]


def _engine(name: str) -> tuple[str, str]:
    """Return engine and dtype, each "" where poolkit chooses."""
    engine, _, dtype = name.partition("/")
    return ("" if engine == DEFAULT else engine), dtype


def _size(options: argparse.Namespace, name: str) -> int:
    return MODELS[name].quick_calls if options.quick else MODELS[name].calls


def _texts(options: argparse.Namespace, name: str) -> int:
    size = _size(options, name)
    return max(COMPARED, size if MODELS[name].work == "embed" else size * (1 + DOCUMENTS))


if __name__ == "__main__":
    main()
