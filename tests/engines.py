"""Loads the torch engine on a folder, with a task made by hand, for tests of the engine alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from checkpoints import real_texts
from poolkit.config import ModelConfig, PluginConfig, PoolerConfig
from poolkit.contract import (
    Activation,
    Decision,
    EncodedPrompt,
    ModelInfo,
    NoSettings,
    Output,
    PooledOutput,
    PoolingParams,
    PoolingTask,
    Prompt,
    Tokenizer,
)
from poolkit.engine.choice import EngineChoice
from poolkit.errors import RequestError
from poolkit.models import read_model
from poolkit.pipeline.params import ParamsResolver
from poolkit.pipeline.weights import load_weights
from poolkit.registry import ENGINES, Registry
from poolkit.tokenization import Encoder
from reading import read, tables

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from poolkit.engine.model import LoadedModel

LONGEST = 256
TOLERANCE = 1e-5
"""Sums in another order differ in float32 by 6e-7 at most here; the promise is 1e-5."""

EMBED = PoolingTask(
    name="embed",
    api=1,
    summary="Embed each prompt as one vector.",
    output=Output.VECTOR,
    operations=(),
    activation=Activation.NORMALIZE,
)


@dataclass(frozen=True)
class LoadedTask:
    """A loaded model, and what resolves the parameters of its task."""

    model: LoadedModel[torch.Tensor]
    resolve: ParamsResolver

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self.model.decisions

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        return self.model.forward(prompts)

    def close(self) -> None:
        self.model.close()


def make_task(output: Output, activation: Activation = Activation.IDENTITY, *, head: str | None = None) -> PoolingTask:
    """Return a task that asks the model for `output`."""
    return PoolingTask(
        name="try", api=1, summary="Try.", output=output, operations=(), activation=activation, head=head
    )


def make_encoder(tokenizer: Tokenizer, info: ModelInfo, task: PoolingTask = EMBED) -> Encoder:
    """Return an encoder that resolves parameters for a task."""
    return Encoder(tokenizer, info, ParamsResolver(task, info))


def load_encoder(folder: Path | str) -> Encoder:
    """Return the encoder of the model in `folder`."""
    return make_encoder(load_tokenizer(folder), read(folder))


def encode_prompts(
    encoder: Encoder, prompts: Sequence[Prompt], params: Sequence[PoolingParams], **how: object
) -> list[EncodedPrompt | RequestError]:
    """Return prompts tokenized, their parameters resolved first."""
    return encoder.encode(prompts, [encoder.resolve(one) for one in params], **how)


def as_encoded(engine: LoadedTask, ids: Sequence[int], params: PoolingParams | None = None) -> EncodedPrompt:
    """Return token ids as the engine takes them."""
    return EncodedPrompt(np.array(ids, np.int32), engine.resolve(params or PoolingParams()))


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Return the tokenizer of the model in `folder`."""
    from poolkit.tokenization import tokenizer

    return tokenizer.load_tokenizer(read(folder))


def load_engine(
    folder: Path | str, *, task: PoolingTask = EMBED, pooler: PoolerConfig | None = None, **settings: object
) -> LoadedTask:
    """Return the engine of the model in `folder`, in float32 unless `settings` say otherwise."""
    config = ModelConfig(
        **{"model": str(folder), "dtype": "float32", "pooler_config": pooler or PoolerConfig(), **settings}
    )
    info = read_model(config, tables())
    encoder = make_encoder(load_tokenizer(folder), info, task)
    model = load_weights(choose("torch"), info, task=task, settings=NoSettings(), encoder=encoder)
    return LoadedTask(model, ParamsResolver(task, info))


def choose(name: str) -> EngineChoice:
    """Return the choice of one of poolkit's own engines."""
    return EngineChoice(name, Registry.load(PluginConfig()).entries(ENGINES))


def run(
    engine: LoadedTask, prompts: Sequence[Sequence[int]], params: PoolingParams | None = None
) -> list[NDArray[np.float32]]:
    """Run the token ids of some prompts as one batch."""
    outputs = engine.forward([as_encoded(engine, ids, params) for ids in prompts])
    return [output.data for output in outputs]


def decision(engine: LoadedTask, name: str) -> tuple[str, str]:
    """Return the value and the source of one start-up decision."""
    return next((one.value, one.source) for one in engine.decisions if one.name == name)


def texts_and_ids(folder: Path | str, count: int) -> tuple[list[str], list[list[int]]]:
    """Return `count` real texts of 1 to 256 tokens, shuffled, and the token ids of each."""
    texts = real_texts(2 * count)
    encoded = load_tokenizer(folder).encode_batch(texts, add_special_tokens=True)
    pairs = [(text, ids) for text, ids in zip(texts, encoded, strict=True) if 1 <= len(ids) <= LONGEST][:count]
    assert len(pairs) == count
    Random(1).shuffle(pairs)
    return [text for text, _ in pairs], [ids for _, ids in pairs]


def run_in_batches(engine: LoadedTask, prompts: Sequence[Sequence[int]], *, size: int) -> list[NDArray[np.float32]]:
    """Run the token ids of some prompts, so many at a time."""
    return [vector for i in range(0, len(prompts), size) for vector in run(engine, prompts[i : i + size])]


def largest_difference(vectors: Sequence[NDArray[np.float32]], reference: NDArray[np.float32]) -> float:
    """Return the largest difference of any number of any vector."""
    return float(np.abs(np.stack(vectors) - reference).max())
