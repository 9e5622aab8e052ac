"""Keys of results: a digest of everything that decides what the model makes of a prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import importlib_metadata
from pydantic import BaseModel

if TYPE_CHECKING:
    from poolkit import BindContext, EncodedPrompt

__all__ = ["Keys"]

FORMAT = 2
"""Raised when what is stored changes its form or meaning."""

DECIDES_NO_RESULT = {
    "task",
    "batching",
    "max_num_batched_tokens",
    "max_num_seqs",
    "num_streams",
    "threads_per_stream",
}
"""Settings of the model that only say how prompts are run; the task has its own place in the key."""

DECIDES_POOLING = ("activates", "dimensions", "columns", "step_tag_id", "parts", "extra")
"""Parameters that have a part in the result; those about tokenization show in the token ids."""


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
            "plugins": [*_providers("poolkit.tasks", task.name), *_engine_providers(config.engine)],
            "model": context.model.name,
            "config": config.model_dump(mode="json", exclude=DECIDES_NO_RESULT),
            "files": sorted(_files(context.model.path)),
        }
        self._common = hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=32)

    def key(self, prompt: EncodedPrompt) -> str:
        """Return the key of one prompt. One of another modality than text is known by its digest, and is not read."""
        digest = self._common.copy()
        params = {name: getattr(prompt.params, name) for name in DECIDES_POOLING}
        digest.update(json.dumps(params, sort_keys=True, default=_dump).encode())
        digest.update(b"query" if prompt.is_query else b"document")
        if prompt.unread is not None:
            digest.update(prompt.unread.modality.encode() + prompt.unread.digest)
            return digest.hexdigest()
        digest.update(prompt.token_ids.tobytes())
        if prompt.token_type_ids is not None:
            digest.update(b"types" + prompt.token_type_ids.tobytes())
        if prompt.prompt_length:
            digest.update(b"prompt_length %d" % prompt.prompt_length)
        if prompt.attention_length is not None:
            digest.update(b"attention_length %d" % prompt.attention_length)
        return digest.hexdigest()


def _dump(extra: object) -> object:
    assert isinstance(extra, BaseModel)
    return extra.model_dump(mode="json")


def _engine_providers(name: str) -> list[str]:
    """Return what provides the engine; with "auto" any may be the one."""
    return _providers("poolkit.engines") if name == "auto" else _providers("poolkit.engines", name)


def _providers(group: str, *names: str) -> list[str]:
    """Return name and version of every distribution with such an entry point, enabled or not: too many do no harm."""
    found = [one for one in importlib_metadata.entry_points(group=group) if not names or one.name in names]
    return sorted(f"{one.dist.name} {one.dist.version}" for one in found if one.dist is not None)


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of change: to read gigabytes of weights would take longer than to run many prompts."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in name.parts:
            status = path.stat()
            yield name.as_posix(), status.st_size, status.st_mtime_ns
