"""Builds the wheels that later commits must still run: contrib's packages, and one of each kind that poolkit writes.

    python tests/compatibility/freeze.py

writes them into `wheels/api-N`, N being this core's `API_VERSION`. Those of a version that was released are never built
again: what no longer runs with them is a break, which is undone or becomes a new version.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from poolkit import API_VERSION

ROOT = Path(__file__).parents[2]
WHEELS = Path(__file__).parent / "wheels" / f"api-{API_VERSION}"
ENTRY_POINTS = '[project.entry-points."poolkit.'
KINDS = ("task", "head", "hooks", "engine", "dialect")


def main() -> None:
    """Build all of them."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for kind in KINDS:
            command = ["plugins", "new", f"frozen-{kind}", "--kind", kind, "--output", folder]
            subprocess.run([Path(sys.executable).with_name("poolkit"), *command], check=True, stdout=subprocess.DEVNULL)
        projects = ROOT.glob("contrib/*/pyproject.toml")
        plugins = [path.parent for path in projects if ENTRY_POINTS in path.read_text(encoding="utf-8")]
        packages = sorted([*Path(folder).iterdir(), *plugins])
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--wheel-dir", str(WHEELS), *map(str, packages)], check=True)


if __name__ == "__main__":
    main()
