"""Serves the fake engine's model, for tests of the HTTP side: everything around the engine is real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import httpx
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from poolkit.config import ModelConfig, Named, PluginConfig
from poolkit.engine import EncodedPrompt
from poolkit.registry import Registry
from poolkit.served import ServedModel
from poolkit.testing import FAKE_MODEL, FakeEngine


class HeldEngine(FakeEngine):
    """A fake engine whose forward passes wait until they are let go."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.is_reached = threading.Event()
        self.may_go = threading.Event()
        self.prompts_run = 0

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[NDArray[np.float32]]:
        self.is_reached.set()
        self.may_go.wait()
        self.prompts_run += len(prompts)
        return super().forward(prompts)


@contextmanager
def fake_model(
    task: str = "embed",
    *,
    plugin: str | None = None,
    engine: Callable[..., FakeEngine] = FakeEngine,
    max_waiting_prompts: int = 16384,
) -> Iterator[ServedModel]:
    """Yield a served model of the fake engine, and close it."""
    enable = () if plugin is None else (Named(plugin, "a test"),)
    registry = Registry.load(PluginConfig(enable=enable))
    chosen = registry.get_pooling_task(registry.supported_tasks(FAKE_MODEL), task, model=FAKE_MODEL)
    served = ServedModel(
        info=FAKE_MODEL,
        task=registry.bind(chosen, FAKE_MODEL),
        engine=engine(chosen),
        config=ModelConfig(max_num_seqs=1),
        max_waiting_prompts=max_waiting_prompts,
    )
    try:
        yield served
    finally:
        served.close()


def ask(app: FastAPI, method: str, path: str, **request: object) -> httpx.Response:
    """Send one request to an app in this process."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(send())
