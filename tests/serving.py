"""Helpers of the HTTP tests: an app without weights asked in this process, and a backbone that can be held."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from poolkit.contract import Batch, States
from poolkit.server import App
from poolkit.testing import FakeBackbone, fake_model

__all__ = ["Caller", "HeldBackbone", "ask", "fake_model", "ids_in"]


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


class Caller:
    """A client, as the server sees it: what it has sent, and whether it is still there."""

    def __init__(self, app: App, body: dict[str, object]) -> None:
        self.app = app
        self.body = json.dumps(body).encode()
        self.has_left = asyncio.Event()
        self.sent: list[dict[str, object]] = []
        self.is_read = False

    async def receive(self) -> dict[str, object]:
        if not self.is_read:
            self.is_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, object]) -> None:
        self.sent.append(message)

    async def call(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/embeddings",
            "raw_path": b"/v1/embeddings",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await self.app(scope, self.receive, self.send)


def ask(app: App, method: str, path: str, **request: object) -> httpx.Response:
    """Send one request to an app in this process."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(send())


def ids_in(response: BaseModel) -> list[list[int]]:
    """Return the token ids of each prompt in a response, as lists."""
    return [ids.tolist() for ids in response.prompt_token_ids]  # type: ignore[attr-defined]
