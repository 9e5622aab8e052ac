"""A check: a function that yields what is wrong with a plugin, and what must hold before it makes sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from poolkit.testing.checks.plugin import PluginUnderTest

__all__ = ["Check", "check"]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule.

    Attributes:
        find: yields a sentence for each breach; raises NotApplicableError where the rule does not apply.
        since: the minor release of poolkit that brought it.
        needs: the checks that must have passed, or it is skipped.
        is_advice: a breach is only warned of.
    """

    find: Callable[[PluginUnderTest], Iterator[str]]
    since: str
    needs: tuple[Check, ...]
    is_advice: bool

    @property
    def name(self) -> str:
        """The name by which it is reported and expected to fail."""
        return self.find.__name__

    @property
    def rule(self) -> str:
        """The rule it checks, in a sentence."""
        return (self.find.__doc__ or "").splitlines()[0]


def check(
    *, since: str, needs: tuple[Check, ...] = (), is_advice: bool = False
) -> Callable[[Callable[[PluginUnderTest], Iterator[str]]], Check]:
    """Make a check of a function whose docstring states the rule."""
    return lambda find: Check(find, since, needs, is_advice)
