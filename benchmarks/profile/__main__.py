"""Measures where the time of a request goes and writes docs/performance.md with its plot.

python -m benchmarks.profile            as poolkit is by default
python -m benchmarks.profile --engine torch
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import torch

from benchmarks.compare.models import model_folder
from benchmarks.compare.online import MODEL, start_server
from benchmarks.compare.peers import poolkit
from benchmarks.compare.texts import make_corpus, token_counts
from benchmarks.machine import ROOT, conditions, threads
from benchmarks.profile.page import plot, render
from benchmarks.profile.roofline import measure_limits, read_encoder
from benchmarks.profile.stages import profile
from poolkit import LLM

BATCH = 512
REPORTED = ("engine", "dtype", "path", "streams", "library")


def main() -> None:
    """Measure the server, then the machine, and write the page."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended as well
    torch.set_num_threads(threads())
    corpus = make_corpus(2 * BATCH)
    folder = str(model_folder(MODEL))
    peer = poolkit(options.engine, options.dtype)
    kinds = {
        "12 words": [[text] for text in corpus.short],
        "a passage": [[text] for text in corpus.passages],
        f"{BATCH} passages": [list(corpus.passages[start : start + BATCH]) for start in (0, BATCH)],
    }
    server = start_server(peer, peer.settings[0], folder, corpus, starts=1)
    try:
        profiles = [profile(server, folder, name, inputs, seconds=options.seconds) for name, inputs in kinds.items()]
    finally:
        server.process.close()
    decisions = _decisions(options)
    dtype = decisions["dtype"]
    encoder, limits = read_encoder(folder, dtype), measure_limits(folder, dtype)
    lengths = {name: _typical_lengths(inputs) for name, inputs in kinds.items()}
    report = [f"{name} {decisions[name]}" for name in REPORTED if name in decisions]
    page = render(conditions(), profiles, limits, encoder, report=report, lengths=lengths)
    (ROOT / "docs" / "performance.md").write_text(page, "utf-8")
    least = {name: 1000 * limits.seconds(encoder, lengths[name]) for name in kinds}
    plot(profiles, least, ROOT / "docs" / "performance.png")
    print(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description="Write docs/performance.md.")
    parser.add_argument("--engine", default="", help="default: poolkit's own choice")
    parser.add_argument("--dtype", default="", help="likewise")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind of request (default: %(default)s)")
    return parser.parse_args()


def _decisions(options: argparse.Namespace) -> dict[str, str]:
    """Return what poolkit decides for the model and these options."""
    chosen = {name: value for name, value in (("engine", options.engine), ("dtype", options.dtype)) if value}
    with LLM(**chosen) as llm:
        return {decision.name: decision.value for decision in llm.decisions}


def _typical_lengths(inputs: Sequence[Sequence[str]]) -> Sequence[int]:
    """Return the tokens of each text of the first request, or of a request of the mean length where each has one."""
    if len(inputs[0]) > 1:
        return token_counts(inputs[0])
    counts = token_counts([text for [text] in inputs])
    return [round(sum(counts) / len(counts))]


if __name__ == "__main__":
    main()
