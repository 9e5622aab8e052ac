"""Leaves out the prompts whose results are known, and runs equal prompts once."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from poolkit import EncodedPrompt, Outcome, PooledOutput
from poolkit_plugins.cache._keys import Keys

if TYPE_CHECKING:
    from poolkit import BindContext
    from poolkit_plugins.cache._store import Store

__all__ = ["Cached"]

logger = logging.getLogger(__name__)


class Cached:
    """Surrounds the model in one operation."""

    def __init__(self, context: BindContext, store: Store) -> None:
        self._context = context
        self._store = store
        self._keys = Keys(context)

    def run(
        self, encoded: Sequence[EncodedPrompt]
    ) -> Generator[Sequence[EncodedPrompt], Sequence[Outcome], Sequence[Outcome]]:
        """Yield the prompts whose results are not known, each once; keep what has run.

        What depends on other prompts of the request always runs: a document that is scored inside the engine, and the
        prompts of a group.
        """
        keys = [
            f"{place}" if _depends_on_others(prompt) else self._keys.key(prompt) for place, prompt in enumerate(encoded)
        ]
        known = self._store.read(
            {key for key, prompt in zip(keys, encoded, strict=True) if not _depends_on_others(prompt)}
        )
        unknown = {key: prompt for key, prompt in zip(keys, encoded, strict=True) if key not in known}
        logger.debug(
            "%s/%s: %d prompts, %d results known, %d prompts to run.",
            self._context.task.name,
            self._context.operation.name,
            len(keys),
            len(known),
            len(unknown),
        )
        outcomes = yield list(unknown.values())
        fresh = dict(zip(unknown, outcomes, strict=True))
        self._store.write(
            {
                key: outcome
                for key, outcome in fresh.items()
                if isinstance(outcome, PooledOutput) and _is_result_of(unknown[key], outcome)
            }
        )
        results = {**fresh, **known}
        return [results[key] for key in keys]

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _depends_on_others(prompt: EncodedPrompt) -> bool:
    """Return whether the result of a prompt depends on others of its request."""
    return prompt.params.late_interaction is not None or prompt.group is not None


def _is_result_of(prompt: EncodedPrompt, output: PooledOutput) -> bool:
    """Return whether a result depends on the prompt alone.

    Where a wrapper inside of this one has run other tokens (chunks), its settings have had a part in the result.
    """
    if _depends_on_others(prompt):
        return False
    return prompt.unread is not None or np.array_equal(prompt.token_ids, output.prompt_token_ids)
