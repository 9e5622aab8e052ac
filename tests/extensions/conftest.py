"""Installs third-party packages as real dist-info folders beside the real poolkit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distributions import Site


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that installs a distribution; what was imported from it is forgotten at the end."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    installed: list[str] = []

    def install(name: str, modules: dict[str, str], **groups: dict[str, str]) -> None:
        installed.extend(modules)
        Site(folder).install(name, modules=modules, **groups)

    yield install
    for module in installed:
        sys.modules.pop(module, None)
