"""The library that is loaded, and the reason that is told when there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from poolkit_cpu_kernels import LIBRARIES, Kernels, load
from tiny_models import refused


def loaded_with(variable: str) -> str:
    """Return what a new process prints that loads the kernels with this value of POOLKIT_CPU_KERNELS."""
    code = "from poolkit_cpu_kernels import load; found = load(); print(getattr(found, 'name', found))"
    environment = {**os.environ, "POOLKIT_CPU_KERNELS": variable}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("any_kernels")
@pytest.mark.parametrize("best", LIBRARIES)
def test_the_variable_lowers_the_library(best):
    can_run = [name for name in LIBRARIES[LIBRARIES.index(best) :] if isinstance(load(name), Kernels)]

    assert loaded_with(best) == can_run[0]


def test_the_variable_turns_the_kernels_off():
    assert loaded_with("off") == "POOLKIT_CPU_KERNELS is 'off'"


@pytest.mark.parametrize("value", ["avx", "emulated", ""])
def test_an_unknown_value_of_the_variable_is_an_error(value):
    known = "off, amx, avx512_bf16, avx512, avx2"

    assert loaded_with(value) == f"ValueError: POOLKIT_CPU_KERNELS is {value!r}, expected one of: {known}."


def test_an_unknown_library_is_an_error():
    with refused("library is 'sse2', expected one of: amx, avx512_bf16, avx512, avx2, emulated."):
        load("sse2")


def test_a_library_that_is_asked_for_does_not_depend_on_the_variable(any_kernels, monkeypatch):
    monkeypatch.setenv("POOLKIT_CPU_KERNELS", "off")

    found = load(any_kernels.name)

    assert isinstance(found, Kernels)
    assert found.name == any_kernels.name


def test_every_library_multiplies_in_float32(kernels):
    in_bfloat16 = kernels.name in ("amx", "avx512_bf16", "emulated")

    assert kernels.dtypes == (("float32", "bfloat16", "int8") if in_bfloat16 else ("float32",))


def test_there_is_at_least_one_thread(any_kernels):
    with refused("threads is 0, expected at least 1."):
        any_kernels.set_threads(0)


def test_the_module_says_which_library_is_used(any_kernels):
    done = subprocess.run([sys.executable, "-m", "poolkit_cpu_kernels"], capture_output=True, text=True, check=True)

    assert done.stdout == f"CPU kernels: {any_kernels.name} ({', '.join(any_kernels.dtypes)})\n"


def test_the_module_says_why_there_is_none():
    environment = {**os.environ, "POOLKIT_CPU_KERNELS": "off"}
    command = [sys.executable, "-m", "poolkit_cpu_kernels"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert done.stdout == "CPU kernels: none, POOLKIT_CPU_KERNELS is 'off'\n"


@pytest.mark.usefixtures("any_kernels")
def test_the_example_of_the_readme_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)

    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)

    assert re.fullmatch(r"\[\s*[\d.]+\s+[\d.]+\]\n", done.stdout), done.stderr
