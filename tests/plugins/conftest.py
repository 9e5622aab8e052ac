"""A folder for fake distributions, and a shorthand for enabling them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distributions import Site, open_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site-packages folder whose poolkit 0.1.0 has embed, token_embed, classify, reward and token_classify."""
    with open_site(tmp_path / "site", monkeypatch) as opened:
        yield opened
