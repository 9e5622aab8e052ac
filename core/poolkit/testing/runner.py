"""Runs the checks on a plugin, each after those it needs. In a process of its own: a plugin may hang, or end it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from poolkit.errors import OverloadedError
from poolkit.registry import find_plugin
from poolkit.testing.checks import Check, NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.results import CheckResult, Verdict
from poolkit.testing.stacks import find_culprits

__all__ = ["Runner", "needs_first"]

MAX_BREACHES = 10
LOWER_BOUNDS = (">", ">=", "==", "===", "~=")


@dataclass(frozen=True)
class Runner:
    """Runs checks on one plugin.

    Attributes:
        plugin: the plugin.
        running: the version of this poolkit.
        limit_s: the time that a check may take.
        ended_in: the check in which the plugin hung, or ended an earlier process: it is asked nothing more.
        give_up: called from another thread with the result of a check that takes longer. It ends the process.
        results: the results so far, by the check's name.
    """

    plugin: PluginUnderTest
    running: Version
    limit_s: float
    ended_in: str | None
    give_up: Callable[[CheckResult], None]
    results: dict[str, CheckResult] = field(default_factory=dict)

    @classmethod
    def of(
        cls, plugin: PluginUnderTest, *, limit_s: float, ended_in: str | None, give_up: Callable[[CheckResult], None]
    ) -> Runner:
        """Begin with no results."""
        running = find_plugin("poolkit", named="needed by poolkit.testing").version
        return cls(plugin, Version(running), limit_s, ended_in, give_up)

    def run(self, check: Check) -> CheckResult:
        """Return the result of a check, the needs of which have been run."""
        result = self.results[check.name] = self._run(check)
        return result

    def _run(self, check: Check) -> CheckResult:
        broken = self._first_broken(check.needs)
        if broken is not None:
            return CheckResult(check.name, Verdict.SKIPPED, f"it needs {broken.name}, which did not pass")
        if self.ended_in is not None and examples_are_answered in needs_first(check.needs):
            return CheckResult(check.name, Verdict.SKIPPED, f"the plugin did not survive {self.ended_in}")
        try:
            with self._limit(check):
                breaches = list(islice(check.find(self.plugin), MAX_BREACHES + 1))
        except NotApplicableError as reason:
            return CheckResult(check.name, Verdict.SKIPPED, str(reason))
        except OverloadedError as refusal:
            return CheckResult(
                check.name,
                Verdict.SKIPPED,
                f"the plugin answers with status 429: {refusal} Give it settings that let more requests through.",
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one check's end must not be that of the others
            breaches = [f"the check itself ended in {format_error(error)}"]
        if len(breaches) > MAX_BREACHES:
            breaches[MAX_BREACHES:] = ["There is more."]
        if not breaches:
            return CheckResult(check.name, Verdict.PASSED)
        return CheckResult(check.name, self.severity(check), "\n".join(breaches))

    @contextmanager
    def _limit(self, check: Check) -> Iterator[None]:
        """Give up if the block takes too long, and say where the plugin is."""

        def give_up() -> None:
            places = ", and in ".join(find_culprits(self.plugin.is_own))
            where = f"It hangs in {places}." if places else "No thread is in the plugin's own code."
            message = f"there is no answer after {self.limit_s:g} s. {where}"
            self.give_up(CheckResult(check.name, self.severity(check), message))

        timer = threading.Timer(self.limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _first_broken(self, needs: tuple[Check, ...]) -> Check | None:
        """Return the most basic check that did not pass; one that does not apply holds up no other."""
        for needed in needs:
            if self.results[needed.name].verdict in (Verdict.FAILED, Verdict.WARNED):
                return needed
            broken = self._first_broken(needed.needs)
            if broken is not None:
                return broken
        return None

    def severity(self, check: Check) -> Verdict:
        """Tell a failure from a warning: a plugin has one minor release's time to meet a new check."""
        brought = Version(check.since)
        is_new_to_plugin = any(
            specifier.operator in LOWER_BOUNDS and Version(specifier.version.removesuffix(".*")) < brought
            for specifier in SpecifierSet(self.plugin.installed.requires_poolkit)
        )
        is_new = self.running.release[:2] <= brought.release[:2]
        return Verdict.WARNED if check.is_advice or (is_new and is_new_to_plugin) else Verdict.FAILED


def needs_first(checks: Iterable[Check]) -> list[Check]:
    """Return checks in an order in which each stands behind those it needs."""
    ordered: dict[Check, None] = {}
    for check in checks:
        ordered |= dict.fromkeys([*needs_first(check.needs), check])
    return list(ordered)
