"""Outputs on disk by key, bounded in size. Whatever fails here is logged once and reads as an empty cache."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import diskcache
import numpy as np
from diskcache.core import MODE_PICKLE
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load, save

from poolkit import PooledOutput

__all__ = ["Store", "default_folder"]

logger = logging.getLogger(__name__)

TIMEOUT_S = 1.0
"""The time that a request waits for another that writes, before it goes on without the cache."""

PART = "part."
"""The prefix of the names of an output's parts, so that none is taken for another array."""

FAILURES = (OSError, sqlite3.Error, diskcache.Timeout)


def default_folder() -> Path:
    """Return where results are kept unless the settings say otherwise."""
    return user_cache_path("poolkit") / "results"


class Store:
    """A folder of outputs. Shared between threads, and with other processes that have the same folder open."""

    def __init__(self, cache: diskcache.Cache) -> None:
        self._cache = cache
        self._has_failed = False

    @classmethod
    def open(cls, folder: Path, *, size_limit_bytes: int) -> Self | None:
        """Return the store in a folder, which is made where it is missing, or None where that fails."""
        try:
            return cls(
                diskcache.Cache(
                    str(folder),
                    timeout=TIMEOUT_S,
                    disk=_PlainDisk,
                    size_limit=size_limit_bytes,
                    eviction_policy="least-recently-used",
                    cull_limit=0,  # `write` culls once for all that it has written
                )
            )
        except FAILURES as error:
            logger.warning("The cache in %s cannot be opened, and every prompt runs: %s", folder, error)
            return None

    def read(self, keys: Iterable[str]) -> dict[str, PooledOutput]:
        """Return what is there, by key."""
        found: dict[str, PooledOutput] = {}
        try:
            with self._cache.transact():
                kept = {key: self._cache.get(key) for key in keys}
            for key, data in kept.items():
                if data is not None:
                    found[key] = _decode(data)
        except (*FAILURES, SafetensorError, TypeError, KeyError) as error:  # the latter three: data that is not ours
            self._tell(error)
        return found

    def write(self, outputs: Mapping[str, PooledOutput]) -> None:
        """Keep outputs by key; drop others where there are too many."""
        try:
            with self._cache.transact():
                for key, output in outputs.items():
                    self._cache.set(key, _encode(output))
            self._cache.cull()
        except FAILURES as error:
            self._tell(error)

    def close(self) -> None:
        """Close the files."""
        self._cache.close()

    def _tell(self, error: Exception) -> None:
        level = logging.DEBUG if self._has_failed else logging.WARNING
        self._has_failed = True
        logger.log(level, "The cache in %s failed, and prompts run: %r", self._cache.directory, error)


def _encode(output: PooledOutput) -> bytes:
    arrays = {f"{PART}{name}": array for name, array in output.parts.items()}
    token_ids = np.ascontiguousarray(output.prompt_token_ids)
    return save({"data": np.ascontiguousarray(output.data), "prompt_token_ids": token_ids, **arrays})


def _decode(data: bytes) -> PooledOutput:
    arrays = load(data)
    parts = {name.removeprefix(PART): array for name, array in arrays.items() if name.startswith(PART)}
    return PooledOutput(arrays["data"], arrays["prompt_token_ids"], parts)


class _PlainDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Reads no pickles: somebody who can write to the folder could have the server run anything with one."""

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> object:
        """Return a stored value, as diskcache asks for it."""
        return b"" if mode == MODE_PICKLE else super().fetch(mode, filename, value, read)
