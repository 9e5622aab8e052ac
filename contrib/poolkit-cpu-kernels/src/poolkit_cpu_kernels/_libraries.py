"""Chooses the library of this process: the best that the CPU can run, or a lower one that the user names."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

from poolkit_cpu_kernels._kernels import Kernels

LIBRARIES = ("amx", "avx512_bf16", "avx512", "avx2")
"""Names of the libraries, the best first."""

VARIABLE = "POOLKIT_CPU_KERNELS"
"""Environment variable with the best library to use, or `off`."""

_ABI = 1
_TEST_LIBRARIES = ("emulated",)  # the AMX code with tiles in plain C: built for tests, and loaded by name alone


def load(library: str | None = None) -> Kernels | str:
    """Return the kernels of the best library, or the reason why there are none.

    The best library is the first of `LIBRARIES` that was built and that this CPU and operating system can run, at most
    the one that the environment variable POOLKIT_CPU_KERNELS names. `library` asks for exactly that one, whatever the
    variable says. An unknown name is a ValueError.
    """
    if library is not None:
        _check_name(library, (*LIBRARIES, *_TEST_LIBRARIES), "library")
        return _open(library)
    best = os.environ.get(VARIABLE, LIBRARIES[0])
    _check_name(best, ("off", *LIBRARIES), VARIABLE)
    if best == "off":
        return f"{VARIABLE} is 'off'"
    if not any(map(_find, LIBRARIES)):
        return _why_none_is_built()
    reasons = []
    for name in LIBRARIES[LIBRARIES.index(best) :]:
        opened = _open(name)
        if isinstance(opened, Kernels):
            return opened
        reasons.append(opened)
    return "; ".join(reasons)


def _check_name(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        raise ValueError(f"{what} is {name!r}, expected one of: {', '.join(known)}.")


def _open(name: str) -> Kernels | str:
    path = _find(name)
    if path is None:
        return f"the library {name} was not built"
    calls = ctypes.CDLL(str(path))
    if calls.kernels_abi() != _ABI:
        return f"the library {name} belongs to another version of poolkit-cpu-kernels: install the package again"
    if not calls.kernels_supported():
        return f"this machine cannot run the library {name}"
    return Kernels(name, calls)


def _find(name: str) -> Path | None:
    from poolkit_cpu_kernels import __path__ as folders  # two in an editable install: sources, and what was built

    paths = (Path(folder, f"{name}.so") for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _why_none_is_built() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"there are no libraries for {platform.system()} on {platform.machine()}, only for Linux on x86_64"
    return (
        "no library was built: poolkit-cpu-kernels was installed without a C++ compiler (g++ 11 or clang 12 or later)"
    )
