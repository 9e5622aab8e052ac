"""Models with the first-party plugins around them: real ones, and the conformance kit's fake with a task of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distributions import Site
from poolkit import PluginConfig, PoolerConfig
from poolkit.config import ModelConfig, Reference
from poolkit.contract import Batch, PooledRows, PoolingTask, States
from poolkit.pipeline.served import ServedModel, load_model
from poolkit.testing import FakeBackbone

Serve = Callable[..., AbstractContextManager[ServedModel]]

TASK = """
from dataclasses import replace
from poolkit import (
    Activation, Operation, Output, PoolingProcessor, PoolingRequest, PoolingResponse, PoolingTask, TextPair
)

class PairsProcessor(PoolingProcessor):
    def pre_process(self, request):
        prepared = super().pre_process(request)
        return replace(prepared, prompts=[TextPair(*text.split("|")) for text in prepared.prompts])

class LengthsProcessor(PoolingProcessor):
    def post_process(self, prepared, outputs):
        return super().post_process(prepared, [replace(output, data=output.parts["length"]) for output in outputs])

GRADE = PoolingTask(
    name="grade",
    api=1,
    summary="Grades texts.",
    output=Output.{output},
    activation=Activation.SIGMOID,
    operations=(
        Operation(
            name="pooling",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="poolkit:PoolingProcessor",
        ),
        Operation(
            name="pairs",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="grade_{module}:PairsProcessor",
        ),
        Operation(
            name="lengths",
            request=PoolingRequest,
            response=PoolingResponse,
            io_processor="grade_{module}:LengthsProcessor",
        ),
    ),
)
"""


class PartsBackbone(FakeBackbone):
    """A fake backbone for a head that gives the number of tokens besides."""

    def __init__(self, task: PoolingTask) -> None:
        super().__init__(task)
        pool = self.pooler

        def with_lengths(states: States[NDArray[np.float32]], batch: Batch) -> PooledRows[NDArray[np.float32]]:
            lengths = np.array(batch.segments.sizes, np.float32)[:, None]  # (prompts, 1)
            return replace(pool(states, batch), parts={"length": PooledRows(lengths)})

        self.pooler = with_lengths


@pytest.fixture
def parts_backbone() -> type[FakeBackbone]:
    return PartsBackbone


@pytest.fixture
def serve(checkpoint: Callable[..., Path], one_thread: None) -> Serve:  # noqa: ARG001 - threads are set by it
    """Return a function that serves a model, a tiny BERT by default, with the plugins named and their settings."""

    @contextmanager
    def serve(
        *enable: str,
        model: Path | None = None,
        pooler: PoolerConfig | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        **config: object,
    ) -> Iterator[ServedModel]:
        served = load_model(
            ModelConfig(
                model=str(model or checkpoint("bert", max_seq_length=32)),
                **{"dtype": "float32", "pooler_config": pooler or PoolerConfig(), **config},
            ),
            PluginConfig(
                enable=tuple(Reference(name, f"--plugin {name}") for name in enable),
                settings={name: dict(table) for name, table in (settings or {}).items()},
            ),
        )
        try:
            yield served
        finally:
            served.close()

    return serve


@pytest.fixture
def install_grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes poolkit's only task one of that output, beside its hook modules."""

    def install(output: str) -> None:
        path, module = tmp_path / "site", output.lower()
        path.mkdir()
        monkeypatch.syspath_prepend(path)
        Site(path).install(
            "poolkit",
            "0.1.0",
            modules={f"grade_{module}": TASK.format(output=output, module=module)},
            tasks={"grade": f"grade_{module}:GRADE"},
            hooks={name: f"poolkit_plugins.{name}" for name in ("cache", "chunking")},
        )

    return install
