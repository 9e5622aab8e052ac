"""Leaves out the prompts whose results are known, and gives the processor one output for each that it prepared."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolkit import PooledOutput, PoolingParams, Prepared, Prompt, TextPair, hookimpl
from poolkit.errors import RequestError
from poolkit_plugins._prompts import as_prompt, params_of_ids
from poolkit_plugins.cache._keys import Keys

if TYPE_CHECKING:
    from pydantic import BaseModel

    from poolkit import BindContext
    from poolkit.engine import EncodedPrompt
    from poolkit_plugins.cache._store import Store

__all__ = ["Cached"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """A request of which only the unknown prompts run.

    Attributes:
        whole: as it was prepared.
        keys: of each of its prompts.
        known: what the store had, by key.
        unknown: what runs, by key, in order.
    """

    whole: Prepared
    keys: Sequence[str]
    known: Mapping[str, PooledOutput]
    unknown: Mapping[str, EncodedPrompt]


class Cached:
    """Surrounds one operation."""

    def __init__(self, context: BindContext, store: Store) -> None:
        self._context = context
        self._store = store
        self._keys = Keys(context)

    @hookimpl(wrapper=True)
    def pre_process(self) -> Generator[None, Prepared, Prepared]:
        """Prepare only the prompts whose results are not known, each once."""
        whole = yield
        if any(params.late_interaction is not None for params in whole.params_of_each):
            return whole  # what comes of a document is its score, which depends on another prompt of the request
        encoded: list[EncodedPrompt] = []
        for one in self._context.encoder.encode(whole.prompts, whole.params_of_each, first_index=0, refuses_long=False):
            if isinstance(one, RequestError):
                return whole  # it runs as it is: each refusal is told by the prompt's index, and the others run
            encoded.append(one)
        keys = [self._keys.key(one) for one in encoded]
        known = self._store.read(set(keys))
        unknown = {key: one for key, one in zip(keys, encoded, strict=True) if key not in known}
        if any(len(one.token_ids) > self._context.model.max_model_len for one in unknown.values()):
            return whole  # likewise, unless a wrapper outside of this one can make something of it
        logger.debug(
            "%s/%s: %d prompts, %d results known, %d prompts to run.",
            self._context.task.name,
            self._context.operation.name,
            len(keys),
            len(known),
            len(unknown),
        )
        prompts = dict(zip(keys, whole.prompts, strict=True))
        to_run = [_as_it_runs(prompts[key], one) for key, one in unknown.items()]
        return Prepared(
            [prompt for prompt, _ in to_run],
            [params for _, params in to_run],
            _LookedUp(whole, keys, known, unknown),
            is_rearranged=len(to_run) < len(keys) or whole.is_rearranged,
        )

    @hookimpl(wrapper=True)
    def post_process(
        self, prepared: Prepared, outputs: Sequence[PooledOutput]
    ) -> Generator[tuple[Prepared, Sequence[PooledOutput]] | None, BaseModel, BaseModel]:
        """Keep what has run, and put it back among what was known."""
        looked_up = prepared.state
        if not isinstance(looked_up, _LookedUp):
            return (yield None)
        fresh = dict(zip(looked_up.unknown, outputs, strict=True))
        # Where a wrapper outside of this one has run other tokens, its settings have had a part in the result.
        self._store.write(
            {
                key: output
                for key, output in fresh.items()
                if list(output.prompt_token_ids) == list(looked_up.unknown[key].token_ids)
            }
        )
        results = {**fresh, **looked_up.known}
        return (yield looked_up.whole, [results[key] for key in looked_up.keys])

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _as_it_runs(prompt: Prompt, encoded: EncodedPrompt) -> tuple[Prompt, PoolingParams]:
    """Return what runs as `prompt` does, with its params: its token ids.

    A pair stays one, because a wrapper around this one may want to cut its second text.
    """
    if isinstance(prompt, TextPair):
        return prompt, encoded.params
    tokens = as_prompt(encoded.token_ids, encoded.token_type_ids, unpooled=encoded.unpooled)
    return tokens, params_of_ids(encoded.params)
