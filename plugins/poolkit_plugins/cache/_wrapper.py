"""Leaves out the prompts whose results are known, and gives the processor one output for each that it prepared."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolkit import ImagePrompt, PooledOutput, PoolingParams, Prepared, Prompt, TextPair, hookimpl
from poolkit.errors import RequestError
from poolkit_plugins._prompts import as_prompt, params_of_ids
from poolkit_plugins.cache._keys import Keys

if TYPE_CHECKING:
    from pydantic import BaseModel

    from poolkit import BindContext
    from poolkit.contract import EncodedPrompt
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
    unknown: Mapping[str, _Run]


@dataclass(frozen=True, slots=True)
class _Run:
    """A prompt as it runs, and its token ids; None for an image, which is not decoded here."""

    prompt: Prompt
    params: PoolingParams
    token_ids: Sequence[int] | None


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
        prompts = list(zip(whole.prompts, whole.params_of_each, strict=True))
        others = [(prompt, params) for prompt, params in prompts if not isinstance(prompt, ImagePrompt)]
        texts, of_texts = [prompt for prompt, _ in others], [params for _, params in others]
        encoded = iter(self._context.encoder.encode(texts, of_texts, first_index=0, refuses_long=False))
        keys: list[str] = []
        runs: dict[str, _Run] = {}
        for prompt, params in prompts:
            if isinstance(prompt, ImagePrompt):
                keys.append(self._keys.of_image(prompt, params))
                runs[keys[-1]] = _Run(prompt, params, None)
                continue
            one = next(encoded)
            if isinstance(one, RequestError):
                return whole  # it runs as it is: each refusal is told by the prompt's index, and the others run
            keys.append(self._keys.key(one))
            runs[keys[-1]] = _as_it_runs(prompt, one)
        known = self._store.read(set(keys))
        unknown = {key: one for key, one in runs.items() if key not in known}
        if any(len(one.token_ids or ()) > self._context.model.max_model_len for one in unknown.values()):
            return whole  # likewise, unless a wrapper outside of this one can make something of it
        logger.debug(
            "%s/%s: %d prompts, %d results known, %d prompts to run.",
            self._context.task.name,
            self._context.operation.name,
            len(keys),
            len(known),
            len(unknown),
        )
        return Prepared(
            [one.prompt for one in unknown.values()],
            [one.params for one in unknown.values()],
            _LookedUp(whole, keys, known, unknown),
            outputs_map_to_inputs=len(unknown) == len(keys) and whole.outputs_map_to_inputs,
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
                if (ran := looked_up.unknown[key].token_ids) is None or list(output.prompt_token_ids) == list(ran)
            }
        )
        results = {**fresh, **looked_up.known}
        return (yield looked_up.whole, [results[key] for key in looked_up.keys])

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _as_it_runs(prompt: Prompt, encoded: EncodedPrompt) -> _Run:
    """Return what runs as `prompt` does: its token ids.

    A pair stays one, because a wrapper around this one may want to cut its second text.
    """
    if isinstance(prompt, TextPair):
        return _Run(prompt, encoded.params, encoded.token_ids)
    tokens = as_prompt(encoded.token_ids, encoded.token_type_ids, prompt_length=encoded.prompt_length)
    return _Run(tokens, params_of_ids(encoded.params), encoded.token_ids)
