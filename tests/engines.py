"""Loads the torch engine on a folder, with a task made by hand, for tests of the engine alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from poolkit.config import ModelConfig, PoolerConfig
from poolkit.contract import Activation, Output, PoolingParams, PoolingTask
from poolkit.engine import EncodedPrompt
from poolkit.models import read_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.engine.torch_engine import TorchEngine

EMBED = PoolingTask(
    name="embed",
    api=1,
    summary="Embed each prompt as one vector.",
    output=Output.VECTOR,
    operations=(),
    activation=Activation.NORMALIZE,
)


def load_engine(
    folder: Path | str, *, task: PoolingTask = EMBED, pooler: PoolerConfig | None = None, **settings: object
) -> TorchEngine:
    """Return the engine of the model in `folder`, in float32 unless `settings` say otherwise."""
    from poolkit.engine.torch_engine import create_engine

    config = ModelConfig(
        **{"model": str(folder), "dtype": "float32", "pooler_config": pooler or PoolerConfig(), **settings}
    )
    return create_engine(read_model(config), task=task, config=config)


def run(
    engine: TorchEngine, prompts: Sequence[Sequence[int]], params: PoolingParams | None = None
) -> list[NDArray[np.float32]]:
    """Run the token ids of some prompts as one batch."""
    return list(engine.forward([EncodedPrompt(ids, params or PoolingParams()) for ids in prompts]))


def decision(engine: TorchEngine, name: str) -> tuple[str, str]:
    """Return the value and the source of one start-up decision."""
    return next((one.value, one.source) for one in engine.decisions if one.name == name)
