"""A plugin that keeps every rule, to be broken in one place, and what the kit says of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from distributions import Site, open_site
from poolkit.cli import main
from sound_plugin import SOUND


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with open_site(tmp_path / "site", monkeypatch) as opened:
        yield opened


@pytest.fixture
def install(site: Site) -> Callable[..., None]:
    """Return a function that installs the plugin with some of its source replaced."""

    def install(
        changes: Mapping[str, str] | None = None,
        *,
        tasks: Mapping[str, str] | None = None,
        requires: Sequence[str] = ("poolkit>=0.1,<0.2",),
        fakes: str = "",
    ) -> None:
        source = SOUND
        for old, new in (changes or {}).items():
            assert old in source
            source = source.replace(old, new)
        site.install(
            "poolkit-sound",
            modules={"poolkit_sound": source},
            tasks=tasks or {"sound": "poolkit_sound:SOUND"},
            requires=requires,
        )
        if fakes:
            entry_points = site.path / "poolkit_sound-1.0.0.dist-info" / "entry_points.txt"
            entry_points.write_text(f"{entry_points.read_text()}\n[poolkit.fakes]\nsound = {fakes}\n")

    return install


@pytest.fixture
def poolkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line and returns its exit code, output and error output."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poolkit", *arguments])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run
