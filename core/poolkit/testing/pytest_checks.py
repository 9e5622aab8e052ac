"""The conformance kit as tests of a plugin's own suite: one test a check."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from poolkit.errors import did_you_mean
from poolkit.testing.checks import CHECKS, Check
from poolkit.testing.kit import CHECK_LIMIT_S, check_plugin
from poolkit.testing.results import CheckResult, Verdict

if TYPE_CHECKING:
    import pytest

__all__ = ["parametrize_with_checks"]


def parametrize_with_checks(
    name: str,
    *,
    expected_failures: Mapping[str, str] | None = None,
    settings: Mapping[str, object] | None = None,
    limit_s: float = CHECK_LIMIT_S,
) -> pytest.MarkDecorator:
    """Make a test of each check of a plugin. The test function takes `check` and calls it.

        @parametrize_with_checks("poolkit-gliner", expected_failures={"order_is_kept": "entities are sorted by score"})
        def test_conformance(check):
            check()

    A check that does not apply is skipped, a warning is a `UserWarning`. The first test runs all checks, in a process
    of their own: see `check_plugin`.

    Args:
        name: of the plugin, as for `check_plugin`.
        expected_failures: by the name of a check, why it fails. Once it passes, its test fails.
        settings: of the plugin, as for `check_plugin`.
        limit_s: the time that a check may take.

    Raises:
        ValueError: there is no check of that name, or an expected failure has no reason.
    """
    import pytest  # here: poolkit does not depend on it

    expected = dict(expected_failures or {})
    known = [check.name for check in CHECKS]
    for expected_name, reason in expected.items():
        if expected_name not in known:
            raise ValueError(f"there is no check named {expected_name!r}.{did_you_mean(expected_name, known)}")
        if not reason:
            raise ValueError(f"the expected failure of {expected_name!r} has no reason. Say why it fails.")

    @functools.cache
    def results() -> Mapping[str, CheckResult]:
        return {result.name: result for result in check_plugin(name, settings=settings, limit_s=limit_s)}

    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(
                functools.partial(_run, results, check),
                id=check.name,
                marks=[pytest.mark.xfail(reason=expected[check.name], strict=True)] if check.name in expected else (),
            )
            for check in CHECKS
        ],
    )


def _run(results: Callable[[], Mapping[str, CheckResult]], check: Check) -> None:
    import pytest

    result = results()[check.name]
    if result.verdict is Verdict.SKIPPED:
        pytest.skip(result.message)
    if result.verdict is Verdict.WARNED:
        warnings.warn(f"{result.name}: {result.message}", UserWarning, stacklevel=2)
    if result.verdict is Verdict.FAILED:
        pytest.fail(f"{check.rule}\n{result.message}", pytrace=False)
