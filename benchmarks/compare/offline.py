"""Throughput and latency without a server: each peer in its best setting, all of them in turn, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare.environments import UnavailableError
from benchmarks.compare.models import Model, model_folder
from benchmarks.compare.peer import Peer, Setting
from benchmarks.compare.runner import Runner
from benchmarks.compare.texts import DOCUMENTS, Call, Corpus

__all__ = ["COMPARED", "Measured", "Missing", "measure_offline"]

TRIED_SHARE = 4
"""A setting is tried on one part in so many of a round's work."""
COMPARED = 16
"""Texts whose vectors are compared."""
MIN_AGREEMENT = {"embed": 0.99, "rerank": 0.98, "late_interaction": 0.98}
"""Of vectors: the smallest cosine. Of scores: their correlation. Between bfloat16 and float32, with random weights."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one peer with one model, as medians.

    Attributes:
        items_per_s: texts, or pairs of a query and a document.
        tokens_per_s: tokens of the texts.
        alone_ms: a text of twelve words by itself, or a query with its documents.
        agreement: with the first peer: the smallest cosine of vectors, or the correlation of scores.
        tried_s: the seconds that a part of the work took in each setting.
        rounds_s: each round's seconds.
    """

    model: str
    peer: str
    is_ours: bool
    setting: Setting
    items_per_s: float
    tokens_per_s: float
    alone_ms: float
    agreement: float
    peak_memory_mb: float
    load_s: float
    rounds_s: Sequence[float]
    tried_s: Mapping[str, float]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Missing:
    """A row without figures, and the reason."""

    what: str
    peer: str
    reason: str


@dataclass(slots=True)
class _Side:
    """A peer that has loaded the model."""

    peer: Peer
    runner: Runner
    setting: Setting
    tried: Mapping[str, float]
    rows: NDArray[np.float32]
    agreement: float
    rounds_s: list[float] = field(default_factory=list)
    alone_s: list[float] = field(default_factory=list)


def measure_offline(
    model: Model, peers: Sequence[Peer], corpus: Corpus, *, size: int, rounds: int, alone: int, device: str, say: Say
) -> tuple[list[Measured], list[Missing]]:
    """Measure all peers with one model.

    Args:
        model: what is loaded.
        peers: the first one's rows are what the others' are compared with.
        corpus: the texts.
        size: texts of a round, or queries.
        rounds: how many are measured.
        alone: texts that are also embedded one by one in each round.
        device: "cpu" or "cuda".
        say: takes a line about what is being done.
    """
    call = corpus.call(model.work, size)
    single = corpus.call(model.work, 1) if model.work != "embed" else {"texts": list(corpus.short[:alone])}
    sides: list[_Side] = []
    missing: list[Missing] = []
    try:
        for peer in peers:
            say(f"{model.name}: {peer.name}")
            try:
                sides.append(_choose(peer, model, corpus, size, device, expected=sides[0].rows if sides else None))
            except UnavailableError as error:
                say(f"  {error}")
                missing.append(Missing(model.name, peer.name, str(error)))
        for number in range(rounds):
            say(f"{model.name}: round {number + 1} of {rounds}")
            for side in sides[:: 1 if number % 2 else -1]:
                try:
                    side.rounds_s.append(sum(side.runner.seconds(call, side.setting)))
                    side.alone_s += side.runner.seconds(single, side.setting, each=True)
                except UnavailableError as error:
                    say(f"  {side.peer.name}: {error}")
                    missing.append(Missing(model.name, side.peer.name, f"in round {number + 1}: {error}"))
                    side.runner.close()
                    sides.remove(side)
        items = size if model.work == "embed" else size * DOCUMENTS
        return [
            _measured(model, side, items=items, tokens=corpus.token_count(model.work, size)) for side in sides
        ], missing
    finally:
        for side in sides:
            side.runner.close()


def _choose(
    peer: Peer, model: Model, corpus: Corpus, size: int, device: str, *, expected: NDArray[np.float32] | None
) -> _Side:
    """Load a peer, try its settings on a part of the work, and keep it loaded in the best of them.

    Raises:
        UnavailableError: it cannot be run, or its rows are not the expected ones.
    """
    if reason := peer.refuses(model):
        raise UnavailableError(reason)
    part = corpus.call(model.work, max(1, size // TRIED_SHARE))
    compared = corpus.call(model.work, COMPARED if model.work == "embed" else 1)
    by_load: dict[str, list[Setting]] = {}
    for setting in peer.settings:
        by_load.setdefault(repr(setting.load), []).append(setting)
    tried: dict[str, float] = {}
    best: _Side | None = None
    for settings in by_load.values():
        runner = Runner(peer, model, model_folder(model), settings[0].load, device=device)
        try:
            rows = runner.rows(compared, settings[0])
            agreement = 1.0 if expected is None else _agreement(expected, rows)
            if agreement < MIN_AGREEMENT[model.work]:
                raise UnavailableError(f"its rows are not the first peer's (agreement {agreement:.3f})")
            taken = {setting: _tried_s(runner, part, setting, is_only=len(peer.settings) == 1) for setting in settings}
        except UnavailableError:
            runner.close()
            raise
        tried |= {str(setting): seconds for setting, seconds in taken.items()}
        setting = min(taken, key=taken.__getitem__)
        if best is not None and tried[str(best.setting)] <= taken[setting]:
            runner.close()
            continue
        if best is not None:
            best.runner.close()
        best = _Side(peer, runner, setting, tried, rows, agreement)
    assert best is not None
    return best


def _tried_s(runner: Runner, part: Call, setting: Setting, *, is_only: bool) -> float:
    """Return the seconds that a part of the work takes once everything is warm; 0 where there is nothing to choose."""
    runner.seconds(part, setting)
    return 0.0 if is_only else sum(runner.seconds(part, setting))


def _agreement(expected: NDArray[np.float32], rows: NDArray[np.float32]) -> float:
    if rows.shape != expected.shape:
        return 0.0
    if rows.ndim == 1:
        return float(np.corrcoef(expected, rows)[0, 1])
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(rows, axis=1)  # (texts,)
    return float((np.einsum("td,td->t", expected, rows) / norms).min())


def _measured(model: Model, side: _Side, *, items: int, tokens: int) -> Measured:
    return Measured(
        model=model.name,
        peer=side.peer.name,
        is_ours=side.peer.is_ours,
        setting=side.setting,
        items_per_s=items / median(side.rounds_s),
        tokens_per_s=tokens / median(side.rounds_s),
        alone_ms=1000 * median(side.alone_s),
        agreement=side.agreement,
        peak_memory_mb=side.runner.peak_memory_mb(),
        load_s=side.runner.load_s,
        rounds_s=side.rounds_s,
        tried_s=side.tried,
        facts=side.runner.facts,
    )
