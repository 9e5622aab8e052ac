"""An engine of the plugin under test, with a small model: that of `poolkit.fakes`, or a BERT."""

from __future__ import annotations

import pkgutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import importlib_metadata
import numpy as np
from numpy.typing import NDArray
from packaging.utils import canonicalize_name

from poolkit.config import ModelConfig
from poolkit.contract import Backbone, Batch, EncodedPrompt, EngineProvider, ModelInfo, PoolingParams, States
from poolkit.engine.batch import fit_states, lay_out
from poolkit.engine.model import close_backbone
from poolkit.pipeline import prepare_model
from poolkit.registry import ENGINES, EntryPoint
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest
from poolkit.testing.serving import FAKES
from poolkit.testing.tiny_model import write_tiny_model

__all__ = ["LoadedEngine", "Rows", "engines_of", "load_engine", "loaded_engines", "rows_of"]

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine with a small model.

    Attributes:
        name: of its entry point.
        provider: the module that the entry point names.
        info: what the model's files say.
        backbone: the backbone that it loaded.
        prompts: by what they are, tokenized for the model.
    """

    name: str
    provider: EngineProvider
    info: ModelInfo
    backbone: Backbone[NDArray[np.generic]]
    prompts: dict[str, EncodedPrompt]

    def states(self, prompts: Sequence[EncodedPrompt]) -> tuple[States[NDArray[np.generic]], Batch, list[int]]:
        """Return the states of prompts, borrowed from the engine, their batch, and where it has each prompt."""
        batch, order = lay_out(prompts)
        return fit_states(self.backbone(batch), batch), batch, order

    def rows(self, prompts: Sequence[EncodedPrompt]) -> list[Rows]:
        """Return a copy of each prompt's states."""
        return rows_of(*self.states(prompts))


def engines_of(plugin: PluginUnderTest) -> tuple[EntryPoint, ...]:
    """Return the entry points of the plugin's engines, but for those that say of the small model: it does not suit.

    Raises:
        NotApplicableError: none is left.
    """
    engines = plugin.installed.in_group(ENGINES)
    if not engines:
        raise NotApplicableError("the plugin has no engines")
    reasons = {entry: _reason_not_to(plugin, entry) for entry in engines}
    if None not in reasons.values():
        told = "; ".join(f"{entry.name}: {reason}" for entry, reason in reasons.items())
        raise NotApplicableError(f"no engine suits the model that it would be tried with: {told}")
    return tuple(entry for entry in engines if reasons[entry] is None)


def _reason_not_to(plugin: PluginUnderTest, entry: EntryPoint) -> str | None:
    """Return why an engine does not want to run the small model, by its `suits`."""
    suits: Callable[[ModelInfo], str | None] | None = getattr(pkgutil.resolve_name(entry.value), "suits", None)
    if suits is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        _find_writer(plugin.installed.name, entry.name)(Path(folder))
        prepared = prepare_model(ModelConfig(model=folder, engine=entry.name, dtype="float32"), plugin.config)
        with closing(prepared.task):
            reason: str | None = suits(prepared.info)
    return reason


def loaded_engines(plugin: PluginUnderTest) -> Iterator[LoadedEngine]:
    """Yield each of the plugin's engines; it is closed when the next one is asked for."""
    for entry in engines_of(plugin):
        with load_engine(plugin, entry) as engine:
            yield engine


@contextmanager
def load_engine(plugin: PluginUnderTest, entry: EntryPoint) -> Iterator[LoadedEngine]:
    """Yield an engine, and close it at the end.

    Raises:
        NotApplicableError: it cannot run the small model.
    """
    with tempfile.TemporaryDirectory() as folder:
        _find_writer(plugin.installed.name, entry.name)(Path(folder))
        config = ModelConfig(model=folder, engine=entry.name, dtype="float32")
        prepared = prepare_model(config, plugin.config)
        try:
            provider = prepared.engines.current(prepared.info).provider
            found = provider.load_backbone(prepared.info)
            if isinstance(found, str):
                raise NotApplicableError(
                    f"engine {entry.name!r} cannot run the model that it was tried with: {found}. Name a function "
                    f"that writes a small one into a folder in an entry point {entry.name!r} of group {FAKES}"
                )
            backbone = cast("Backbone[NDArray[np.generic]]", found)
            try:
                size = prepared.info.max_model_len
                texts = {
                    "an empty text": "",
                    "a short text": "a cat",
                    "a text of other scripts": "東京 مرحبا 🙂",
                    "a text of some length": "the cat sat on the mat and the dog ran in the park",
                    "the longest text": " ".join("abcdefgh"[number % 8] for number in range(4 * size)),
                }
                params = prepared.encoder.resolve(PoolingParams(truncate_prompt_tokens=-1))
                encoded = prepared.encoder.encode(list(texts.values()), [params] * len(texts))
                prompts = {
                    name: prompt
                    for name, prompt in zip(texts, encoded, strict=True)
                    if isinstance(prompt, EncodedPrompt)
                }
                yield LoadedEngine(entry.name, provider, prepared.info, backbone, prompts)
            finally:
                close_backbone(backbone, entry.name)
        finally:
            prepared.task.close()


def rows_of(states: States[NDArray[np.generic]], batch: Batch, order: Sequence[int]) -> list[Rows]:
    """Return a copy of each prompt's states, in the order of the prompts."""
    if states.tokens is None:
        assert states.rows is not None
        found = list(_to_numpy(states.rows)[:, None])
    else:
        found = list((states.segments or batch.segments).split(_to_numpy(states.tokens)))
    places = np.argsort(order)
    return [found[place].copy() for place in places]


def _find_writer(plugin: str, engine: str) -> Callable[[Path], None]:
    """Return what writes the model that an engine is tried with."""
    for entry_point in importlib_metadata.entry_points(group=FAKES, name=engine):
        if entry_point.dist is not None and canonicalize_name(entry_point.dist.name) == plugin:
            return cast("Callable[[Path], None]", pkgutil.resolve_name(entry_point.value))
    return write_tiny_model


def _to_numpy(array: object) -> Rows:
    """Return a numpy array or a torch tensor in float32, on the host."""
    if not isinstance(array, np.ndarray):
        import torch

        assert isinstance(array, torch.Tensor)
        array = array.detach().float().cpu().numpy()
    return array.astype(np.float32)
