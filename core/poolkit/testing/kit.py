"""Runs the checks on a plugin: each once, after those it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from poolkit.registry import find_plugin
from poolkit.testing.checks import CHECKS, Check, NotApplicableError, Subject, tell
from poolkit.testing.results import CheckResult, Verdict

__all__ = ["Examination", "check_plugin"]

MOST_BREACHES = 10
LOWER_BOUNDS = (">", ">=", "==", "===", "~=")


def check_plugin(name: str) -> list[CheckResult]:
    """Return what each check of the conformance kit says of an installed plugin, enabled or not.

        failed = [result for result in check_plugin("poolkit-gliner") if result.verdict is Verdict.FAILED]

    Nothing is downloaded and no model is loaded: a fake engine stands in, and the requests are the examples in the
    schemas of the plugin's own operations. Where a plugin has hooks, the built-in tasks are tried with them on. A check
    that is newer than the poolkit a plugin requires at least only warns, for the minor release that brought it.

    Args:
        name: of its distribution: "poolkit-gliner", or "gliner" for short; "poolkit" for the built-in tasks.

    Raises:
        PluginError: no such plugin is installed.
    """
    examination = Examination.of(name)
    return [examination.result(check) for check in CHECKS]


@dataclass(frozen=True)
class Examination:
    """One plugin and what has been found out about it so far."""

    subject: Subject
    running: Version
    _results: dict[str, CheckResult] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str) -> Examination:
        """Begin with an installed plugin.

        Raises:
            PluginError: no such plugin is installed.
        """
        running = find_plugin("poolkit", named="needed by poolkit.testing").version
        return cls(Subject(find_plugin(name, named="named for the conformance kit")), Version(running))

    def result(self, check: Check) -> CheckResult:
        """Return what a check says, from memory if it has been run."""
        if check.name not in self._results:
            self._results[check.name] = self._run(check)
        return self._results[check.name]

    def _run(self, check: Check) -> CheckResult:
        broken = self._first_broken(check.needs)
        if broken is not None:
            return CheckResult(check.name, Verdict.SKIPPED, f"it needs {broken.name}, which did not pass")
        try:
            breaches = list(islice(check.find(self.subject), MOST_BREACHES + 1))
        except NotApplicableError as reason:
            return CheckResult(check.name, Verdict.SKIPPED, str(reason))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one check's end must not be that of the others
            breaches = [f"the check itself ended in {tell(error)}"]
        if len(breaches) > MOST_BREACHES:
            breaches[MOST_BREACHES:] = ["There is more."]
        if not breaches:
            return CheckResult(check.name, Verdict.PASSED)
        return CheckResult(check.name, self._severity(check), "\n".join(breaches))

    def _first_broken(self, needs: tuple[Check, ...]) -> Check | None:
        """Return the check at the bottom of it that did not pass; one that does not apply stands in nobody's way."""
        for needed in needs:
            if self.result(needed).verdict in (Verdict.FAILED, Verdict.WARNED):
                return needed
            broken = self._first_broken(needed.needs)
            if broken is not None:
                return broken
        return None

    def _severity(self, check: Check) -> Verdict:
        """Tell a failure from a warning: a plugin has one minor release's time to meet a new check."""
        brought = Version(check.since)
        is_new_to_plugin = any(
            specifier.operator in LOWER_BOUNDS and Version(specifier.version.removesuffix(".*")) < brought
            for specifier in SpecifierSet(self.subject.plugin.requires_poolkit)
        )
        is_new = self.running.release[:2] <= brought.release[:2]
        return Verdict.WARNED if check.is_advice or (is_new and is_new_to_plugin) else Verdict.FAILED
