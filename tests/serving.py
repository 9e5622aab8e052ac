"""What tests of the HTTP side share: an app without weights asked in this process, and an engine that can be held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import httpx
from fastapi import FastAPI

from poolkit.contract import EncodedPrompt, PooledOutput
from poolkit.testing import FakeEngine, fake_model

__all__ = ["HeldEngine", "ask", "fake_model"]


class HeldEngine(FakeEngine):
    """A fake engine whose forward passes wait until they are let go."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.is_reached = threading.Event()
        self.may_go = threading.Event()
        self.prompts_run = 0

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        self.is_reached.set()
        self.may_go.wait()
        self.prompts_run += len(prompts)
        return super().forward(prompts)


def ask(app: FastAPI, method: str, path: str, **request: object) -> httpx.Response:
    """Send one request to an app in this process."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(send())
