"""Writes docs/performance.md and its plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.markdown import table
from benchmarks.profile.roofline import Encoder, Limits
from benchmarks.profile.stages import STAGES, Profile

__all__ = ["plot", "render"]

WORDS = {
    "decode": "decode: the body's JSON becomes a request",
    "pre_process": "pre_process: the request becomes prompts",
    "tokenize": "tokenize",
    "queue": "queue: a prompt waits for the engine",
    "forward": "forward: the model, pooling and heads",
    "post_process": "post_process: the model's rows become a response",
    "encode": "encode: the response becomes the answer's JSON",
}
OTHER = "HTTP, and handing over between threads"
INCHES = 4.0
DPI = 110
COLOUR, MUTED = "#1b6ca8", "#b8b8b8"


def render(
    conditions: Mapping[str, object],
    profiles: Sequence[Profile],
    limits: Limits,
    encoder: Encoder,
    *,
    report: Sequence[str],
    lengths: Mapping[str, Sequence[int]],
) -> str:
    """Return the page.

    Args:
        conditions: of the measurement.
        profiles: one for each kind of request.
        limits: of the machine.
        encoder: the model's work.
        report: the lines of the server's start-up report that say how the model runs.
        lengths: the tokens of each text of a request, by the profile's name.
    """
    hardware, versions = conditions["hardware"], conditions["versions"]
    assert isinstance(hardware, Mapping)
    assert isinstance(versions, Mapping)
    least = {one.name: 1000 * limits.seconds(encoder, lengths[one.name]) for one in profiles}
    return f"""# Performance

Where the time of a request goes, by the server's own metrics (`poolkit_stage_seconds_total`, `poolkit_hook_seconds`),
and how far that is from what the machine could do at best. This page is written by `make profile`. How poolkit compares
with other libraries is measured by `make bench`, whose results are in `benchmarks/results`.

- {hardware["processor"]} ({" ".join(hardware["features"])}), {hardware["cores"]} cores, {hardware["system"]}
- {", ".join(f"{name} {version}" for name, version in versions.items())}; commit {conditions["commit"]}
- `{conditions["command"]}`, {conditions["date"]}
- all-MiniLM-L6-v2; {"; ".join(report)}

## One request, stage by stage

One client asks one request after the other on a kept-alive connection. The means, in milliseconds:

{_stage_table(profiles, least)}

![The stages of each request](performance.png)

In a request of many texts, some are tokenized while others run, so that its stages add up to more than the whole. Least
possible is the time of the model alone in the table below: operations at the best rate, or reading the weights once.

## The limits of this machine

A token of a text of 128 costs {(encoder.operations([128]) / 128) / 1e6:.1f} million operations in this model, and its
weights take {encoder.weight_bytes / 1e6:.1f} MB. Measured with all threads in {encoder.dtype}, the best of the
repetitions:

{_limit_table(limits)}

{_roofline_table(profiles, least, encoder, limits, lengths)}
"""


def _stage_table(profiles: Sequence[Profile], least: Mapping[str, float]) -> str:
    rows = [(WORDS[stage], *(f"{one.stages_ms[stage]:.3f}" for one in profiles)) for stage in STAGES]
    rows.append((OTHER, *("" if one.is_overlapped else f"{one.other_ms:.3f}" for one in profiles)))
    rows.append(("**whole, for the client**", *(f"**{one.client_ms:.3f}**" for one in profiles)))
    rows.append(("whole, by the server's clock", *(f"{one.server_ms:.3f}" for one in profiles)))
    rows.append(("least possible for the model", *(f"{least[one.name]:.3f}" for one in profiles)))
    rows.append(("tokens", *(f"{one.tokens:,.0f}" for one in profiles)))
    rows.append(("forward passes", *(f"{one.batches:.1f}" for one in profiles)))
    rows.append(("requests measured", *(f"{one.requests:,}" for one in profiles)))
    return table(("", *(one.name for one in profiles)), rows)


def _limit_table(limits: Limits) -> str:
    rows = [
        (f"product of ({rows:,}, {inputs:,}) and ({inputs:,}, {outputs:,})", f"{rate / 1e9:,.0f} GFLOP/s")
        for (rows, inputs, outputs), rate in limits.products.items()
    ]
    return table(("", "rate"), [*rows, ("reading memory", f"{limits.bytes_per_s / 1e9:,.1f} GB/s")])


def _roofline_table(
    profiles: Sequence[Profile],
    least: Mapping[str, float],
    encoder: Encoder,
    limits: Limits,
    lengths: Mapping[str, Sequence[int]],
) -> str:
    return table(
        ("", "operations, ms", "weights, ms", "least possible, ms", "forward, ms", "share of the limit"),
        [
            (
                one.name,
                f"{1000 * encoder.operations(lengths[one.name]) / limits.best:.3f}",
                f"{1000 * encoder.weight_bytes / limits.bytes_per_s:.3f}",
                f"{least[one.name]:.3f}",
                f"{one.stages_ms['forward']:.3f}",
                f"{100 * least[one.name] / one.stages_ms['forward']:.0f} %",
            )
            for one in profiles
        ],
    )


def plot(profiles: Sequence[Profile], least: Mapping[str, float], path: Path) -> None:
    """Write the picture: a panel for each kind of request, a bar for each stage."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(profiles), figsize=(len(profiles) * INCHES, INCHES * 0.75), dpi=DPI, squeeze=False, layout="constrained"
    )
    for panel, one in zip(axes.flat, profiles, strict=True):
        shown = dict(one.stages_ms) if one.is_overlapped else {**one.stages_ms, "other": one.other_ms}
        names = list(reversed(shown))
        bars = panel.barh(names, [max(0.0, shown[name]) for name in names], color=COLOUR)
        panel.bar_label(bars, fmt="{:,.3f}", padding=3, fontsize=7)
        panel.barh(["least possible"], [least[one.name]], color=MUTED)
        panel.axvline(one.client_ms, color="black", linewidth=0.8, linestyle="--")
        panel.margins(x=0.3)
        panel.tick_params(labelsize=7)
        panel.set_xlabel("ms; dashed: the whole request", fontsize=8)
        panel.set_title(one.name, fontsize=9)
    figure.savefig(path)
    pyplot.close(figure)
