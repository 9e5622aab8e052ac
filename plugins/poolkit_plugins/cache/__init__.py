"""Keeps what the model made of each prompt on disk, so that the same prompt need not run twice.

Enabled with `enable = ["cache"]`; needs `pip install 'poolkit[cache]'`. A cache that does not work never fails a
request: what it cannot answer runs.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from poolkit import BindContext, hookimpl

__all__ = ["Settings", "poolkit_wrap"]

logger = logging.getLogger(__name__)

MIB = 1 << 20


class Settings(BaseModel):
    """The folder of the results, and its size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path | None = Field(
        default=None, description="Where results are kept. Default: poolkit/results in the user's cache folder."
    )
    size_limit_bytes: int = Field(
        default=1024 * MIB, ge=MIB, description="Beyond this, what was used least recently is dropped."
    )


@hookimpl
def poolkit_wrap(context: BindContext, settings: Settings) -> list[object]:
    """Surround every operation."""
    try:
        from poolkit_plugins.cache._store import Store, default_folder
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"no module named {error.name!r}. Install it with  python -m pip install 'poolkit[cache]'", name=error.name
        ) from error
    from poolkit_plugins.cache._wrapper import Cached

    folder = settings.folder or default_folder()
    store = Store.open(folder, size_limit_bytes=settings.size_limit_bytes)
    if store is None:
        return []
    logger.info("Results of %s/%s are kept in %s.", context.task.name, context.operation.name, folder)
    return [Cached(context, store)]
