"""Asks an app in this process."""

from __future__ import annotations

import asyncio

import httpx

from poolkit.server import App

__all__ = ["post"]


def post(app: App, path: str, body: object) -> httpx.Response:
    """Post JSON to an app and return its response."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post(path, json=body)

    return asyncio.run(send())
