"""Measures how far poolkit's numbers are from the reference's, and writes docs/fidelity.md.

`make fidelity` writes the page; a test measures every row again, and fails where one has no promise any more that it
keeps, or where the page lists other rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fidelity_rows import ROWS, Row
from sections import table

from poolkit import LLM
from poolkit.errors import ConfigError, ModelError

__all__ = ["PAGE", "Measured", "measure", "render"]

PAGE = Path(__file__).with_name("fidelity.md")
PATHS = {
    "packed": {"engine": "torch", "batching": "packed"},
    "padded": {"engine": "torch", "batching": "padded"},
    "openvino": {"engine": "openvino"},
    "cpu": {"engine": "cpu"},
    "cpu, bfloat16": {"engine": "cpu", "dtype": "bfloat16"},
}
"""The settings of `LLM` by column, beside float32."""
EXACT = ("packed", "padded", "openvino", "cpu")
"""The columns that keep the row's promise. bfloat16 has 8 bits for a number, and so many fewer places."""
HEADER = ("family", "asked", "against", *PATHS, "promised")

INTRODUCTION = """\
# Fidelity

The largest absolute difference between poolkit's numbers and the reference's, in float32, over real texts of 1 to some
250 tokens: by the engine torch packed (no padding at all) and padded, by the engine
[openvino](plugins.md#openvino) and by the engine [cpu](plugins.md#cpu). Where a family cannot run packed, poolkit sees
that at start-up, says so in the start-up report, and runs it padded. The engine openvino runs encoders of texts, the
engine cpu the families in its table, and both refuse others at start-up.

The last column but one is the engine cpu in bfloat16, against the same references in float32. The promise is not for
it: a number in bfloat16 has two to three decimal places. It is `none` too on a machine that has no kernels for it.

Checkpoints are made on the spot with random weights, small, but with the settings that distinguish the architecture;
all-MiniLM-L6-v2 is the real one. Logits and reward scores are compared before their activation.

This page is written by `make fidelity`. Continuous integration measures every row again and fails where a promise is
not kept.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The largest difference of one row by path; a path that the model does not run on is left out."""

    row: Row
    differences: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest difference in float32."""
        return max(self.differences[path] for path in EXACT if path in self.differences)


def measure(row: Row, folder: Path) -> Measured:
    """Make the row's checkpoint in an empty `folder`, and run the reference and each path."""
    folder = row.make(folder)
    expected = row.expect(folder)
    differences = {}
    for path, settings in PATHS.items():
        try:
            llm = LLM(str(folder), task=row.task, device="cpu", **{"dtype": "float32", **settings}, **row.settings)
        except (ConfigError, ModelError):  # of a library that is not installed, or of a model that does not run so
            if path == "padded":
                raise
            continue
        with llm:
            differences[path] = _largest_difference(row.ask(llm), expected)
    return Measured(row, differences)


def render(measured: Sequence[Measured]) -> str:
    """Return the page."""
    rows = [
        (
            one.row.family,
            one.row.asked,
            one.row.against,
            *(f"{one.differences[path]:.0e}" if path in one.differences else "none" for path in PATHS),
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
        numbers = ", ".join(f"{path} {difference:.1e}" for path, difference in measured.differences.items())
        print(f"{row.family}, {row.asked}: {numbers}")  # noqa: T201
        yield measured


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)  # small batches gain nothing from more
    PAGE.write_text(render(list(_measure_all())), encoding="utf-8")
