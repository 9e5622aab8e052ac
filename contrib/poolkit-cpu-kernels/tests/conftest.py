"""Each test of the kernels runs with every library that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from poolkit_cpu_kernels import LIBRARIES, Kernels, load


@pytest.fixture(params=[*LIBRARIES, "emulated"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """Return one of the libraries, with two threads."""
    found = load(request.param)
    if isinstance(found, str):
        pytest.skip(f"AMX code not run: {found}" if request.param in ("amx", "emulated") else found)
    found.set_threads(2)
    yield found
    found.set_threads(1)


@pytest.fixture
def any_kernels() -> Kernels:
    """Return the best library: for what does not depend on which one it is."""
    found = load()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(params=("float32", "bfloat16", "int8"))
def dtype(request: pytest.FixtureRequest, kernels: Kernels) -> str:
    """Return each dtype that the library has."""
    if request.param not in kernels.dtypes:
        pytest.skip(f"{kernels.name} has no {request.param}")
    return request.param
