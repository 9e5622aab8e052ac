"""The log of a server's own process."""

from __future__ import annotations

import logging

__all__ = ["log_to_stderr"]


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write poolkit's records from `level` on, and the warnings of others."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("poolkit").setLevel(level)
