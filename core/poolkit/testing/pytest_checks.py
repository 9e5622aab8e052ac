"""The conformance kit as tests of a plugin's own suite: one test a check."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from poolkit.errors import did_you_mean
from poolkit.testing.checks import CHECKS, Check
from poolkit.testing.kit import Examination
from poolkit.testing.results import Verdict

if TYPE_CHECKING:
    import pytest

__all__ = ["parametrize_with_checks"]


def parametrize_with_checks(name: str, *, expected_failures: Mapping[str, str] | None = None) -> pytest.MarkDecorator:
    """Make a test of each check of a plugin. The test function takes `check` and calls it.

        @parametrize_with_checks("poolkit-gliner", expected_failures={"order_is_kept": "entities are sorted by score"})
        def test_conformance(check):
            check()

    A check that does not apply is skipped, a warning is a `UserWarning`. The plugin is looked up when the first test
    runs.

    Args:
        name: of the plugin, as for `check_plugin`.
        expected_failures: by the name of a check, why it fails. Once it passes, its test fails.

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
    begin = functools.cache(lambda: Examination.of(name))
    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(
                functools.partial(_run, begin, check),
                id=check.name,
                marks=[pytest.mark.xfail(reason=expected[check.name], strict=True)] if check.name in expected else (),
            )
            for check in CHECKS
        ],
    )


def _run(begin: Callable[[], Examination], check: Check) -> None:
    import pytest

    result = begin().result(check)
    if result.verdict is Verdict.SKIPPED:
        pytest.skip(result.message)
    if result.verdict is Verdict.WARNED:
        warnings.warn(f"{result.name}: {result.message}", UserWarning, stacklevel=2)
    if result.verdict is Verdict.FAILED:
        pytest.fail(f"{check.rule}\n{result.message}", pytrace=False)
