"""Guards the CPU kernels by the number of instructions, which valgrind counts: no clock, and no other work disturbs it.

Valgrind knows no AVX-512, so that the library for AVX2 is counted. All but the kernels is the same in all runs and
drops out of the differences.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from native_run import OPERATIONS_PER_TOKEN

kernels = pytest.importorskip("poolkit_cpu_kernels", reason="poolkit-cpu-kernels is not installed here")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="there is no valgrind here to count instructions"),
]

OPERATIONS_PER_INSTRUCTION = 16
"""Of AVX2's fused multiply-add of eight float32 numbers."""
INSTRUCTIONS_PER_LEAST = 3.0
"""Instructions for a token of a text of 64, over the fewest that its products take. Counted: 2.8."""
PADDING = 1.02
"""Instructions for texts of different lengths in one batch, over those for the same texts by themselves."""


@cache
def instructions(*lengths: int) -> int:
    """Count the instructions of a process that runs texts of so many tokens in one batch."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    script = Path(__file__).with_name("native_run.py")
    done = subprocess.run(
        [*command, sys.executable, str(script), *map(str, lengths)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, kernels.VARIABLE: "avx2", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    [count] = re.findall(r"I +refs: +([\d,]+)", done.stderr)
    return int(count.replace(",", ""))


def test_a_token_takes_few_more_instructions_than_its_products_alone():
    more, few = instructions(*[64] * 9), instructions(64)
    per_token = (more - few) / (8 * 64)
    assert per_token <= INSTRUCTIONS_PER_LEAST * OPERATIONS_PER_TOKEN / OPERATIONS_PER_INSTRUCTION


def test_short_texts_beside_a_long_one_are_not_padded():
    none, short, long = instructions(64), instructions(64, *[8] * 16), instructions(64, 256)
    together = instructions(64, 256, *[8] * 16)
    assert together - none <= PADDING * ((short - none) + (long - none))
