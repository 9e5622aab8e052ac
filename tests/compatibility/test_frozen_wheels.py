"""Packages that were built earlier run unchanged with the core as it is now: see `freeze.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from poolkit import API_OLDEST, API_VERSION

WHEELS = sorted((Path(__file__).parent / "wheels").glob("api-*/*.whl"))


def version(wheel: Path) -> int:
    return int(wheel.parent.name.removeprefix("api-"))


def run(site: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command with a wheel's packages in front of all others."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_there_are_wheels_of_every_version_that_is_accepted():
    assert {version(wheel) for wheel in WHEELS} >= set(range(API_OLDEST, API_VERSION + 1))


@pytest.mark.parametrize(
    "wheel", [wheel for wheel in WHEELS if version(wheel) >= API_OLDEST], ids=lambda path: path.stem
)
def test_a_package_that_was_built_earlier_keeps_the_rules(wheel: Path, tmp_path: Path):
    ZipFile(wheel).extractall(tmp_path)
    module = next(path.parent.name for path in tmp_path.glob("*/__init__.py"))
    name = wheel.name.split("-")[0].replace("_", "-")

    imported = run(tmp_path, sys.executable, "-c", f"import {module}; print({module}.__file__)")
    checked = run(tmp_path, Path(sys.executable).with_name("poolkit"), "plugins", "check", name, "--json")

    assert Path(imported.stdout.strip()) == tmp_path / module / "__init__.py", imported.stderr
    assert checked.returncode == 0, checked.stdout + checked.stderr
    verdicts = {result["verdict"] for result in json.loads(checked.stdout)}
    assert "passed" in verdicts
    assert verdicts <= {"passed", "skipped", "warned"}
