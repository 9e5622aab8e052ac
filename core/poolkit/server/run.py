"""Answers requests in this process until it is told to stop, and then lets every accepted request finish."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from poolkit.errors import ConfigError
from poolkit.pipeline.served import ServedModel
from poolkit.server.app import create_app
from poolkit.server.asgi import App
from poolkit.server.drain import Drain
from poolkit.server.listener import address_of
from poolkit.server.parent import Parent
from poolkit.server.protocol import GuardedProtocol, Limits
from poolkit.settings.settings import Settings

__all__ = ["report_ready", "run_server"]

logger = logging.getLogger(__name__)

CLOSE_CONNECTIONS_S = 1
"""The least time that clients have to read their answers, once no request is being served."""


def run_server(
    models: Mapping[str, ServedModel], settings: Settings, listener: socket.socket, *, parent: Parent | None = None
) -> None:
    """Answer requests on a bound socket until a signal comes, then drain.

    Args:
        models: by the names that clients call them.
        settings: of the server.
        listener: bound.
        parent: of a worker: it is told when the server is ready, tells when to stop, and counts for all workers.

    Raises ConfigError where the certificate for TLS cannot be used.
    """
    drain = Drain()
    app = create_app(
        models,
        api_keys=settings.api_key,
        named_api_keys=settings.named_api_keys,
        plugin_headers=settings.plugin_headers,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        dialects=settings.dialects,
        drain=drain,
        scrape=parent.scrape if parent is not None else None,
    )

    def on_start() -> None:
        if parent is None:
            report_ready({name: served.task.name for name, served in models.items()}, settings, listener)
        else:
            parent.start(server, models, app.metrics)

    server = _DrainingServer(
        _configure(app, settings),
        drain=drain,
        drain_timeout_s=settings.drain_timeout_s,
        on_start=on_start,
        parent=parent,
    )
    server.run(sockets=[listener])


def _configure(app: App, settings: Settings) -> uvicorn.Config:
    limits = Limits(settings.head_timeout_s, app.metrics.count_refusal)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(GuardedProtocol, limits=limits)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
    )
    try:
        config.load()
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"ssl_certfile {str(settings.ssl_certfile)!r} and ssl_keyfile {str(settings.ssl_keyfile)!r} cannot be used "
            f"for TLS: {error}. Give a certificate and its key in PEM."
        ) from error
    return config


def report_ready(tasks: Mapping[str, str], settings: Settings, listener: socket.socket) -> None:
    """Log where each model is served, given their tasks by name."""
    for name, task in tasks.items():
        logger.info("Serving %s for %r at %s (docs: /docs)", name, task, address_of(listener, settings))


class _DrainingServer(uvicorn.Server):
    """Uvicorn, but a signal first makes it refuse new requests and wait for those in flight.

    Uvicorn's own way closes the listener at once, so that nobody could read from /readyz that it is shutting down.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Drain,
        drain_timeout_s: float,
        on_start: Callable[[], None],
        parent: Parent | None,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_timeout_s = drain_timeout_s
        self._on_start = on_start
        self._has_parent = parent is not None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain at the first signal; stop at once at the second, if none but the parent may say that."""
        if self._draining is None or self._has_parent:
            self.drain()
        else:
            self.stop()

    def drain(self) -> None:
        """Begin to drain, from any thread; nothing if that has begun."""
        self._call(self._begin_drain)

    def stop(self) -> None:
        """Stop at once, from any thread."""
        self._call(self._stop)

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(function)

    def _begin_drain(self) -> None:
        if self._draining is None:
            self._drain.begin()
            self._draining = asyncio.ensure_future(self._finish())

    def _stop(self) -> None:
        self._drain.begin()
        self.should_exit = self.force_exit = True

    async def _finish(self) -> None:
        logger.info("Shutting down: %d requests to finish.", self._drain.in_flight)
        started = time.monotonic()
        if not await self._drain.wait_idle(self._drain_timeout_s):
            logger.warning("%d requests were not done in %g s.", self._drain.in_flight, self._drain_timeout_s)
        left_s = self._drain_timeout_s - (time.monotonic() - started)  # for answers that clients still read
        self.config.timeout_graceful_shutdown = max(CLOSE_CONNECTIONS_S, math.ceil(left_s))
        self.should_exit = True
