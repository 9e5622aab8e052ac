"""The plot of a run: throughput by model and peer, and latency and throughput by clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.compare.offline import Measured
from benchmarks.compare.online import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]

INCHES = 4.5
DPI = 110
OURS, THEIRS = "#1b6ca8", "#b8b8b8"
MARKERS = "osD^vPX*"


def plot(offline: Sequence[Measured], online: Sequence[Point], path: Path) -> None:
    """Write the picture: a panel for each model, then one for each kind of requests."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    models = list(dict.fromkeys(one.model for one in offline))
    loads = list(dict.fromkeys(point.load for point in online))
    columns = 3
    lines = -(-(len(models) or 1) // columns) + bool(loads)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(columns * INCHES, lines * INCHES * 0.75), dpi=DPI, squeeze=False, layout="constrained"
    )
    panels = list(axes.flat)
    for panel in panels:
        panel.set_visible(False)
    for panel, model in zip(panels, models, strict=False):
        panel.set_visible(True)
        _bars(panel, model, [one for one in offline if one.model == model])
    for panel, load in zip(axes[-1], loads, strict=False):
        panel.set_visible(True)
        _lines(panel, load, [point for point in online if point.load == load])
    figure.savefig(path)
    pyplot.close(figure)


def _bars(panel: Axes, model: str, rows: Sequence[Measured]) -> None:
    ordered = sorted(rows, key=lambda one: one.items_per_s)
    colours = [OURS if one.is_ours else THEIRS for one in ordered]
    bars = panel.barh([one.peer for one in ordered], [one.items_per_s for one in ordered], color=colours)
    panel.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=7)
    panel.tick_params(labelsize=7)
    panel.margins(x=0.18)
    panel.set_title(f"{model}, offline, items/s", fontsize=9)


def _lines(panel: Axes, load: str, points: Sequence[Point]) -> None:
    for peer, marker in zip(dict.fromkeys(point.peer for point in points), MARKERS * len(points), strict=False):
        own = [point for point in points if point.peer == peer]
        colour = {"color": OURS} if own[0].is_ours else {}
        panel.plot([p.requests_per_s for p in own], [p.p50_ms for p in own], marker=marker, label=peer, **colour)
        for point in own:
            panel.annotate(str(point.clients), (point.requests_per_s, point.p50_ms), fontsize=6)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("requests/s", fontsize=8)
    panel.set_ylabel("p50, ms", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.legend(fontsize=7)
    panel.set_title(f"{load}, by number of clients", fontsize=9)
