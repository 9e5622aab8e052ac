"""Reports independent failures together, so that a user mends them in one go."""

from __future__ import annotations

from collections.abc import Sequence

from poolkit.errors import PoolkitError, StartupError

__all__ = ["raise_together"]


def raise_together(errors: Sequence[PoolkitError]) -> None:
    """Raise the only error as it is, several as one StartupError, and nothing if there are none.

    The same words are told once: what is wrong with a wrapper is found again at each operation that it wraps.
    """
    distinct = list({(type(error), str(error)): error for error in errors}.values())
    if len(distinct) == 1:
        raise distinct[0]
    if distinct:
        raise StartupError(distinct)
