"""Measures how far poolkit's numbers are from the reference's, and writes docs/fidelity.md.

`make fidelity` writes the page; a test measures every row again, and fails where one has no promise any more that it
keeps, or where the page lists other rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fidelity_rows import ROWS, Row
from sections import table

from poolkit import LLM
from poolkit.errors import ModelError

__all__ = ["PAGE", "Measured", "measure", "render"]

PAGE = Path(__file__).with_name("fidelity.md")
HEADER = ("family", "asked", "against", "packed", "padded", "openvino", "promised")
PATHS = {"packed": {"batching": "packed"}, "padded": {"batching": "padded"}, "openvino": {"engine": "openvino"}}
"""The settings of `LLM` by column."""

INTRODUCTION = """\
# Fidelity

The largest absolute difference between poolkit's numbers and the reference's, in float32, over real texts of 1 to some
250 tokens: run packed (the fast path: no padding at all), padded, and by the engine [openvino](plugins.md#openvino).
Where a family cannot run packed, poolkit sees that at start-up, says so in the start-up report, and runs it padded. The
engine openvino runs encoders of texts, and refuses others at start-up.

Checkpoints are made on the spot with random weights, small, but with the settings that distinguish the architecture;
all-MiniLM-L6-v2 is the real one. Logits and reward scores are compared before their activation.

This page is written by `make fidelity`. Continuous integration measures every row again and fails where a promise is
not kept.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The largest difference of one row by path; None where the model does not run so."""

    row: Row
    packed: float | None
    padded: float
    openvino: float | None


def measure(row: Row, folder: Path) -> Measured:
    """Make the row's checkpoint in an empty `folder`, and run the reference and each path."""
    folder = row.make(folder)
    expected = row.expect(folder)
    differences = {}
    for path, settings in PATHS.items():
        try:
            llm = LLM(str(folder), task=row.task, dtype="float32", device="cpu", **settings, **row.settings)
        except ModelError:
            if path == "padded":
                raise
            continue
        with llm:
            differences[path] = _largest_difference(row.ask(llm), expected)
    return Measured(row, differences.get("packed"), differences["padded"], differences.get("openvino"))


def render(measured: Sequence[Measured]) -> str:
    """Return the page."""
    rows = [
        (
            one.row.family,
            one.row.asked,
            one.row.against,
            *("none" if number is None else f"{number:.0e}" for number in (one.packed, one.padded, one.openvino)),
            f"{one.row.promised:.0e}",
        )
        for one in measured
    ]
    return f"{INTRODUCTION}\n{table(HEADER, *rows)}\n"


def _largest_difference(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    shapes = [np.shape(one) for one in actual], [np.shape(one) for one in expected]
    if shapes[0] != shapes[1]:
        return float("inf")
    return max((float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True)), default=0.0)


def _measure_all() -> Iterator[Measured]:
    for row in ROWS:
        with TemporaryDirectory() as folder:
            measured = measure(row, Path(folder))
        numbers = ", ".join(f"{path} {getattr(measured, path)}" for path in PATHS)
        print(f"{row.family}, {row.asked}: {numbers}")  # noqa: T201
        yield measured


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)  # small batches gain nothing from more
    PAGE.write_text(render(list(_measure_all())), encoding="utf-8")
