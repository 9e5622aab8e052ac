"""The library of kernels that this machine runs, and the dtype that a model gets there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from poolkit import Decision
from poolkit.errors import ConfigError

if TYPE_CHECKING:
    from poolkit_cpu_kernels import Kernels

    from poolkit import ModelConfig

__all__ = ["DTypeName", "Library", "find_library"]

DTypeName = Literal["float32", "bfloat16", "int8"]

DISTRIBUTION = "poolkit-cpu-kernels"
NOT_INSTALLED = f"{DISTRIBUTION} is not installed"
REMEDY = (
    "Run: python -m pip install 'poolkit[cpu]', or in a checkout of poolkit "
    f"python -m pip install ./contrib/{DISTRIBUTION}, which takes a C++ compiler."
)


@dataclass(frozen=True, slots=True)
class Library:
    """A library of kernels.

    Attributes:
        kernels: its calls.
        dtype: in which a model is computed.
        decisions: for the start-up report.
    """

    kernels: Kernels
    dtype: DTypeName
    decisions: tuple[Decision, ...]

    @classmethod
    def require(cls, config: ModelConfig) -> Library:
        """Return the library for a model. Raises ConfigError where there is none, with what to do about it."""
        found = find_library(config)
        if isinstance(found, str):
            remedy = f" {REMEDY}" if found == NOT_INSTALLED else ""
            raise ConfigError(f"The engine 'cpu' cannot run here: {found}.{remedy}")
        return found


def find_library(config: ModelConfig) -> Library | str:
    """Return the library of this machine with the dtype that the operator wants, or else the best; or why not."""
    try:
        from poolkit_cpu_kernels import VARIABLE, Kernels, load
    except ModuleNotFoundError as error:
        if error.name != "poolkit_cpu_kernels":
            raise
        return NOT_INSTALLED
    try:
        kernels = load()
    except ValueError as error:  # a wrong name in the environment variable
        raise ConfigError(str(error)) from error
    if not isinstance(kernels, Kernels):
        return kernels
    dtype, source = config.dtype, "dtype"
    if dtype == "auto":
        is_fast = "bfloat16" in kernels.dtypes
        dtype = "bfloat16" if is_fast else "float32"
        source = f"auto: {kernels.name} runs it fast" if is_fast else f"auto: {kernels.name} has no fast bfloat16"
    if dtype not in kernels.dtypes:
        return f"its library {kernels.name} computes in {', '.join(kernels.dtypes)}, and dtype is {dtype!r}"
    decisions = (
        Decision(
            "library",
            f"{kernels.name} of {DISTRIBUTION} {version(DISTRIBUTION)}",
            VARIABLE if VARIABLE in os.environ else "the best that was built and this machine runs",
        ),
        Decision("device", "cpu", "the engine cpu"),
        Decision("dtype", dtype, source),
    )
    return Library(kernels, dtype, decisions)
