"""Helpers of the HTTP tests: an app without weights asked in this process, and a backbone that can be held."""

from __future__ import annotations

import asyncio
import threading

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from poolkit.contract import Batch, States
from poolkit.server import App
from poolkit.testing import FakeBackbone, fake_model

__all__ = ["HeldBackbone", "ask", "fake_model", "ids_in"]


class HeldBackbone(FakeBackbone):
    """A fake backbone whose forward passes wait until they are let go."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.is_reached = threading.Event()
        self.may_go = threading.Event()
        self.prompts_run = 0

    def __call__(self, batch: Batch) -> States[NDArray[np.float32]]:
        self.is_reached.set()
        self.may_go.wait()
        self.prompts_run += len(batch)
        return super().__call__(batch)


def ask(app: App, method: str, path: str, **request: object) -> httpx.Response:
    """Send one request to an app in this process."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(send())


def ids_in(response: BaseModel) -> list[list[int]]:
    """Return the token ids of each prompt in a response, as lists."""
    return [ids.tolist() for ids in response.prompt_token_ids]  # type: ignore[attr-defined]
