"""The virtual environments of the peers, each made when it is first asked for, under `.bench/`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import ROOT

__all__ = ["BENCH", "Environment", "UnavailableError"]

BENCH = ROOT / ".bench"
LAST_LINES = 4


class UnavailableError(Exception):
    """A peer cannot take part; the message is the reason that stands in the report, without folders of this machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason.replace(f"{ROOT}{os.sep}", ""))


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with the packages of a peer.

    Attributes:
        name: of its folder.
        requirements: installed together.
        without_dependencies: installed first, and what they require as well, except for `left_out`.
        left_out: distributions that the peer requires and does not need here.
        alias: copies the metadata of the first distribution for the name and the version that the peer looks itself
            up by.
        variables: of the environment while it is installed.
        is_constrained: install what this checkout's constraints.txt says.
    """

    name: str
    requirements: Sequence[str]
    without_dependencies: Sequence[str] = ()
    left_out: Sequence[str] = ()
    alias: tuple[str, str, str] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    is_constrained: bool = False

    def python(self) -> Path:
        """Return the environment's interpreter, making the environment where it is missing or out of date.

        Raises:
            UnavailableError: something cannot be installed.
        """
        folder = BENCH / "venvs" / self.name
        python, made = folder / "bin" / "python", folder / "requirements.json"
        wanted = json.dumps([self.requirements, self.without_dependencies, self.left_out, self.alias])
        if made.is_file() and made.read_text("utf-8") == wanted:
            return python
        print(f"making {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        requirements = list(self.requirements)
        if self.without_dependencies:
            self._install(python, ["--no-deps", "packaging", *self.without_dependencies])
            requirements += self._required_by(python)
        self._install(python, requirements)
        if self.alias is not None:
            _copy_metadata(folder, *self.alias)
        made.write_text(wanted, "utf-8")
        return python

    def _install(self, python: Path, arguments: Sequence[str]) -> None:
        constraints = ["--constraint", str(ROOT / "constraints.txt")] if self.is_constrained else []
        _run([str(python), "-m", "pip", "install", "--quiet", *constraints, *arguments], self.variables)

    def _required_by(self, python: Path) -> list[str]:
        names = [requirement.partition("==")[0] for requirement in self.without_dependencies]
        return json.loads(_run([str(python), "-c", REQUIRED, json.dumps(names), json.dumps(self.left_out)]))


REQUIRED = """
import json, sys
from importlib.metadata import requires
from packaging.requirements import Requirement
names, left_out = map(json.loads, sys.argv[1:])
found = [Requirement(line) for name in names for line in requires(name) or ()]
needed = [one for one in found if one.name not in left_out and (not one.marker or one.marker.evaluate({"extra": ""}))]
print(json.dumps([str(one).partition(";")[0].strip() for one in needed]))
"""


def _copy_metadata(folder: Path, distribution: str, name: str, version: str) -> None:
    """Copy a distribution's metadata for another name and version: some look themselves up by these."""
    [metadata] = (folder / "lib").glob(f"python*/site-packages/{distribution.replace('-', '_')}-*.dist-info")
    copy = metadata.with_name(f"{name}-{version}.dist-info")
    shutil.copytree(metadata, copy)
    lines = (copy / "METADATA").read_text("utf-8").splitlines()
    changed = {"Name": name, "Version": version}
    renamed = [f"{key}: {changed[key]}" if (key := line.partition(":")[0]) in changed else line for line in lines]
    (copy / "METADATA").write_text("\n".join(renamed), "utf-8")
    (copy / "RECORD").unlink()


def _run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(variables or {})}, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise UnavailableError("cannot be installed: " + " / ".join(lines[-LAST_LINES:]))
    return done.stdout
