"""Reports independent failures together, so that a user mends them in one go."""

from __future__ import annotations

from collections.abc import Sequence

from poolkit.errors import PoolkitError, StartupError

__all__ = ["raise_together"]


def raise_together(errors: Sequence[PoolkitError]) -> None:
    """Raise the only error as it is, several as one StartupError, and nothing if there are none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise StartupError(errors)
