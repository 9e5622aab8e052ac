"""The conformance kit's front: asks a process of its own to run the checks, and starts another where one dies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

from poolkit.registry import find_plugin
from poolkit.testing.checks import CHECKS
from poolkit.testing.child import Child, DiedError
from poolkit.testing.results import CheckResult, Verdict

__all__ = ["CHECK_LIMIT_S", "Question", "check_plugin"]

CHECK_LIMIT_S = 30.0
GRACE_S = 5.0
"""The further time that a check may take before its process is killed: it gives up by itself if it still can."""

START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """The question that `python -m poolkit.testing` is asked.

    Attributes:
        plugin: its name.
        settings: of its table.
        limit_s: the time that a check may take.
        results: of the checks that have been run.
        ended_in: the check in which the plugin hung, or ended the process, if it did.
    """

    plugin: str
    settings: Mapping[str, object]
    limit_s: float
    results: tuple[CheckResult, ...] = ()
    ended_in: str | None = None

    @classmethod
    def read(cls, given: object) -> Self:
        """Return a question that came as JSON."""
        fields = cast("dict[str, object]", given)
        results = cast("list[dict[str, str]]", fields["results"])
        return cls(
            plugin=cast("str", fields["plugin"]),
            settings=cast("dict[str, object]", fields["settings"]),
            limit_s=cast("float", fields["limit_s"]),
            results=tuple(map(_read_result, results)),
            ended_in=cast("str | None", fields["ended_in"]),
        )


def check_plugin(
    name: str, *, settings: Mapping[str, object] | None = None, limit_s: float = CHECK_LIMIT_S
) -> list[CheckResult]:
    """Run every check of the conformance kit on an installed plugin, enabled or not.

        failed = [result for result in check_plugin("poolkit-gliner") if result.verdict is Verdict.FAILED]

    Nothing is downloaded and no model is loaded: a fake engine stands in, and the requests are the examples in the
    schemas of the plugin's own operations. Where a plugin has hooks, the built-in tasks are tried with them on. A check
    that is newer than the poolkit a plugin requires at least only warns, for the minor release that brought it.

    The checks run in a process of their own, which ends with this one. A plugin that hangs or ends that process fails
    the check in which it did so, and is asked nothing more.

    Args:
        name: of its distribution: "poolkit-gliner", or "gliner" for short; "poolkit" for the built-in tasks.
        settings: of the plugin, as in its table of poolkit.toml. By default the first example of its settings model, if
            that cannot do without.
        limit_s: the time that a check may take. One that takes longer fails, and its message says in which hook.

    Raises:
        PluginError: no such plugin is installed.
    """
    plugin = find_plugin(name, named="named for the conformance kit")
    question = Question(plugin.name, dict(settings or {}), limit_s)
    results: list[CheckResult] = []
    while True:
        rest = dataclasses.replace(question, results=tuple(results))
        done_before, running = len(results), None
        try:
            with Child("poolkit.testing", dataclasses.asdict(rest)) as child:
                while (running := cast("str | None", child.read(limit_s=START_LIMIT_S))) is not None:
                    results.append(_read_result(child.read(limit_s=limit_s + GRACE_S)))
                    running = None
            return sorted(results, key=lambda result: [check.name for check in CHECKS].index(result.name))
        except DiedError as error:
            if running is not None:
                results.append(CheckResult(running, Verdict.FAILED, f"{error}."))
            elif len(results) == done_before:
                raise
            question = dataclasses.replace(question, ended_in=results[-1].name)


def _read_result(given: object) -> CheckResult:
    fields = cast("dict[str, str]", given)
    return CheckResult(fields["name"], Verdict(fields["verdict"]), fields["message"])
