"""Writes the results of a run: JSON with everything, Markdown with the tables, PNG with the plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.compare.offline import Measured, Missing
from benchmarks.compare.online import Point, Start
from benchmarks.compare.plot import plot
from benchmarks.machine import ROOT
from benchmarks.markdown import table

__all__ = ["RESULTS", "Results", "write"]

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that a run found."""

    conditions: Mapping[str, object]
    offline: Sequence[Measured]
    online: Sequence[Point]
    starts: Sequence[Start]
    missing: Sequence[Missing]


class _Row(Protocol):
    @property
    def peer(self) -> str: ...
    @property
    def is_ours(self) -> bool: ...


RowT = TypeVar("RowT", bound=_Row)


def write(results: Results, folder: Path = RESULTS) -> Sequence[Path]:
    """Write the three files, named by the date and the time of the run, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = str(results.conditions["date"]).removesuffix(" UTC").replace(" ", "-").replace(":", "")
    as_json, as_markdown, as_png = (folder / f"{name}.{kind}" for kind in ("json", "md", "png"))
    as_json.write_text(json.dumps(asdict(results), indent=1) + "\n", "utf-8")
    plot(results.offline, results.online, as_png)
    as_markdown.write_text(render(results, image=as_png.name), "utf-8")
    return as_json, as_markdown, as_png


def render(results: Results, *, image: str) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# poolkit and its peers, {results.conditions['date']}",
        _conditions(results.conditions),
        f"![Throughput and latency, relative to the best peer]({image})",
        *_offline(results.offline),
        *_online(results.online),
        *_starts(results.starts),
        *_missing(results.missing),
    ]
    return "\n\n".join(parts) + "\n"


def _conditions(conditions: Mapping[str, object]) -> str:
    hardware, versions = conditions["hardware"], conditions["versions"]
    assert isinstance(hardware, Mapping)
    assert isinstance(versions, Mapping)
    lines = [
        f"{hardware['processor']} ({' '.join(hardware['features'])}), {hardware['cores']} cores, "
        f"{hardware['memory_gb']} GB, {hardware['system']}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"commit {conditions['commit']}",
        f"`{conditions['command']}`",
    ]
    return "\n".join(f"- {line}" for line in lines) + (
        "\n\nAll in one run, the same texts for all, in turn; medians. Ratio: how many times better poolkit's row is "
        "than the best peer, and poolkit's best row than each peer. Each peer is measured in the best of the "
        "settings that were tried, which is named. Agreement: of the vectors or scores with those of the first row."
    )


def _offline(measured: Sequence[Measured]) -> Iterable[str]:
    for model in dict.fromkeys(one.model for one in measured):
        rows = [one for one in measured if one.model == model]
        rates, alone = _ratios(rows, lambda one: one.items_per_s), _ratios(rows, lambda one: 1 / one.alone_ms)
        yield f"## Offline: {model}"
        yield table(
            ("", "items/s", "ratio", "tokens/s", "alone, ms", "ratio", "memory, MB", "agreement", "setting"),
            [
                (
                    one.peer,
                    f"{one.items_per_s:,.1f}",
                    rates[one.peer],
                    f"{one.tokens_per_s:,.0f}",
                    f"{one.alone_ms:,.2f}",
                    alone[one.peer],
                    f"{one.peak_memory_mb:,.0f}",
                    f"{one.agreement:.5f}",
                    _setting(one),
                )
                for one in rows
            ],
        )


def _setting(one: Measured) -> str:
    """Return the setting, and of poolkit what it decided."""
    decisions = one.facts.get("decisions")
    if not isinstance(decisions, Mapping):
        return str(one.setting)
    shown = [f"{name} {decisions[name]}" for name in ("engine", "dtype", "path", "streams") if name in decisions]
    return "; ".join(shown) or str(one.setting)


def _online(points: Sequence[Point]) -> Iterable[str]:
    for load in dict.fromkeys(point.load for point in points):
        yield f"## Online: {load}"
        lines = []
        for clients in dict.fromkeys(point.clients for point in points):
            rows = [point for point in points if (point.load, point.clients) == (load, clients)]
            rates, latencies = _ratios(rows, lambda one: one.requests_per_s), _ratios(rows, lambda one: 1 / one.p50_ms)
            lines += [
                (
                    one.peer,
                    str(clients),
                    f"{one.requests_per_s:,.0f}",
                    rates[one.peer],
                    f"{one.p50_ms:,.2f}",
                    latencies[one.peer],
                    f"{one.p99_ms:,.2f}",
                    f"{one.failures} ({one.example})" if one.failures else "0",
                )
                for one in rows
            ]
        yield table(("", "clients", "requests/s", "ratio", "p50, ms", "ratio", "p99, ms", "failures"), lines)


def _starts(starts: Sequence[Start]) -> Iterable[str]:
    if not starts:
        return
    ratios = _ratios(starts, lambda one: 1 / one.ready_s)
    yield "## Servers"
    yield table(
        ("", "ready after, s", "ratio", "memory after all loads, MB", "setting"),
        [
            (one.peer, f"{one.ready_s:.2f}", ratios[one.peer], f"{one.peak_memory_mb:,.0f}", one.setting)
            for one in starts
        ],
    )


def _missing(missing: Sequence[Missing]) -> Iterable[str]:
    if missing:
        yield "## Not measured"
        yield table(("", "of", "reason"), [(one.peer, one.what, one.reason.replace("|", "/")) for one in missing])


def _ratios(rows: Sequence[RowT], rate: Callable[[RowT], float]) -> Mapping[str, str]:
    """Return poolkit's figure relative to the others' by the row's name; "" where there is nothing to compare."""
    ours = [rate(row) for row in rows if row.is_ours]
    theirs = [rate(row) for row in rows if not row.is_ours]
    if not ours or not theirs:
        return {row.peer: "" for row in rows}
    return {
        row.peer: f"**{rate(row) / max(theirs):.2f}**" if row.is_ours else f"{max(ours) / rate(row):.2f}"
        for row in rows
    }
