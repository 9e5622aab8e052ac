"""Keys of results: a digest of everything that decides what the model makes of a prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import importlib_metadata
import numpy as np

from poolkit_plugins._prompts import params_of_ids

if TYPE_CHECKING:
    from poolkit import BindContext, ImagePrompt, PoolingParams
    from poolkit.contract import EncodedPrompt

__all__ = ["Keys"]

FORMAT = 1
"""Raised when what is stored changes its form or meaning."""

DECIDES_NO_RESULT = {"task", "batching", "max_num_batched_tokens", "max_num_seqs"}
"""Settings of the model that only say how prompts are run; the task has its own place in the key."""


class Keys:
    """Makes the keys of one task on one model.

    They tell apart: the task and the versions of the plugins that provide it and the engine; the model's name, revision
    and settings, and its files by size and time of change; the parameters; the token ids and their types.
    """

    def __init__(self, context: BindContext) -> None:
        task, config = context.task, context.model.config
        decides = {
            "format": FORMAT,
            "task": [task.name, task.output, task.activation],
            "plugins": [*_providers("poolkit.tasks", task.name), *_providers("poolkit.engines", config.engine)],
            "model": context.model.name,
            "config": config.model_dump(mode="json", exclude=DECIDES_NO_RESULT),
            "files": sorted(_files(context.model.path)),
        }
        self._common = hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=32)

    def key(self, prompt: EncodedPrompt) -> str:
        """Return the key of one prompt."""
        digest = self._of_params(params_of_ids(prompt.params))
        digest.update(np.asarray(prompt.token_ids, np.int64).tobytes())
        if prompt.token_type_ids is not None:
            digest.update(b"types" + np.asarray(prompt.token_type_ids, np.int64).tobytes())
        if prompt.prompt_length:
            digest.update(b"prompt_length %d" % prompt.prompt_length)
        return digest.hexdigest()

    def of_image(self, image: ImagePrompt, params: PoolingParams) -> str:
        """Return the key of an image."""
        digest = self._of_params(params)
        digest.update(b"image" + image.data)
        return digest.hexdigest()

    def _of_params(self, params: PoolingParams) -> hashlib.blake2b:
        digest = self._common.copy()
        digest.update(json.dumps(asdict(params), sort_keys=True).encode())
        return digest


def _providers(group: str, name: str) -> list[str]:
    """Return name and version of every distribution with such an entry point, enabled or not: too many do no harm."""
    found = importlib_metadata.entry_points(group=group, name=name)
    return sorted(f"{one.dist.name} {one.dist.version}" for one in found if one.dist is not None)


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of change: to read gigabytes of weights would take longer than to run many prompts."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in name.parts:
            status = path.stat()
            yield name.as_posix(), status.st_size, status.st_mtime_ns
