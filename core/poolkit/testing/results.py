"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CheckResult", "Verdict"]


class Verdict(StrEnum):
    """The result of a check."""

    PASSED = "passed"
    FAILED = "failed"
    WARNED = "warned"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check of a plugin.

    Attributes:
        name: of the check.
        verdict: WARNED is a piece of advice, or a failure of a check that is too new to count. SKIPPED means that the
            plugin was not examined in this respect.
        message: the problem, or the reason why it was skipped; empty for a check that passed.
    """

    name: str
    verdict: Verdict
    message: str = ""
