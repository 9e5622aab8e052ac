"""The routes that every server has, whatever it serves: what is served, whether it is well, and its documentation."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import cache
from http import HTTPStatus

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from poolkit.contract import Reply
from poolkit.registry import operation_paths
from poolkit.server.choice import Models
from poolkit.server.docs_page import write_docs
from poolkit.server.drain import Drain
from poolkit.server.failures import RefusedError
from poolkit.server.routes import HttpRequest, Route
from poolkit.server.schema import Document

__all__ = ["SYSTEM_PATHS", "system_routes"]

SYSTEM_PATHS = frozenset(
    {
        "/v1/models",
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/tasks",
        "/version",
        "/docs",
        "/openapi.json",
    }
)
"""Paths that no plugin may take."""


def system_routes(
    models: Models,
    *,
    drain: Drain,
    scrape: Callable[[], Awaitable[bytes]],
    version: str,
    describe: Callable[[], Document],
) -> Sequence[Route]:
    """Return the routes. `describe` makes the OpenAPI document, once."""
    started = int(time.time())
    document = cache(describe)

    async def list_models(request: HttpRequest) -> Reply:  # noqa: ARG001 - an endpoint
        """List the served models."""
        data = [
            {
                "id": name,
                "object": "model",
                "created": started,
                "owned_by": "poolkit",
                "root": served.name,
                "max_model_len": served.info.max_model_len,
                "task": served.task.name,
            }
            for name, served in models.items()
        ]
        return Reply.json({"object": "list", "data": data})

    async def livez(request: HttpRequest) -> Reply:  # noqa: ARG001
        """Say that the process answers at all."""
        return Reply.json({"status": "alive"})

    async def readyz(request: HttpRequest) -> Reply:  # noqa: ARG001
        """Say whether new requests are taken: 503 once the server is shutting down, or if an engine has died."""
        drain.check_open()
        for name, served in models.items():
            if not served.is_alive:
                raise RefusedError(
                    f"The engine of {name} has died and nothing can be run. Restart the server; its log says why.",
                    status=HTTPStatus.SERVICE_UNAVAILABLE,
                    code="engine_dead",
                )
        return Reply.json({"status": "ready"})

    async def count(request: HttpRequest) -> Reply:  # noqa: ARG001
        """Return the counts in Prometheus' text format."""
        return Reply(await scrape(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def tasks(request: HttpRequest) -> Reply:  # noqa: ARG001
        """List the installed tasks, as  poolkit plugins list  does, and say which are served, and where."""
        listing = {
            name: {"task": served.task.name, "operations": operation_paths(served.task)}
            for name, served in models.items()
        }
        rows = dict.fromkeys(row for served in models.values() for row in served.registry.rows())
        return Reply.json({"models": listing, "tasks": [asdict(row) for row in rows]})

    async def tell_version(request: HttpRequest) -> Reply:  # noqa: ARG001
        """Return poolkit's version."""
        return Reply.json({"version": version})

    async def docs(request: HttpRequest) -> Reply:
        """Show the routes to people."""
        page = write_docs(document(), root=request.root)
        return Reply(page.encode(), headers={"content-type": "text/html; charset=utf-8"})

    async def openapi(request: HttpRequest) -> Reply:
        """Show the routes to programs."""
        servers = {"servers": [{"url": request.root}]} if request.root else {}
        return Reply.json({**document(), **servers})

    return [
        Route("/v1/models", list_models),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/health", readyz),
        Route("/metrics", count),
        Route("/tasks", tasks),
        Route("/version", tell_version),
        Route("/docs", docs),
        Route("/openapi.json", openapi),
    ]
