"""Runs the server in this process until it is told to stop, and then lets every accepted request finish."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from types import FrameType

import uvicorn

from poolkit.config import PluginConfig
from poolkit.errors import ConfigError
from poolkit.pipeline.served import ServedModel, load_model
from poolkit.registry import Registry
from poolkit.server.app import check_dialects, create_app
from poolkit.server.drain import Drain
from poolkit.settings.settings import Settings

__all__ = ["serve"]

logger = logging.getLogger(__name__)

CLOSE_CONNECTIONS_S = 1
"""The time that uvicorn waits, once the drain is over, for answers that are still being written."""


def serve(settings: Settings, plugins: PluginConfig) -> None:
    """Load the models and serve them until SIGTERM or SIGINT; a second signal stops at once.

    Raises:
        ConfigError: the address cannot be used, or is open to others without a key.
        ModelError, PluginError, TaskError, StartupError: as `load_model` does.
    """
    check_exposure(settings)
    check_dialects(Registry.load(plugins), dialects=settings.dialects)
    with ExitStack() as stack:
        listener = _bind(settings.host, settings.port)  # before the weights are read: a taken port should fail at once
        stack.callback(listener.close)
        models: dict[str, ServedModel] = {}
        for name, config in settings.models.items():
            served = load_model(config, plugins, max_waiting_prompts=settings.max_waiting_prompts)
            stack.callback(served.close, settings.drain_timeout_s)
            models[name or served.name] = served
            for decision in served.decisions:
                logger.info("%s: %s (%s)", decision.name, decision.value, decision.source)
        run_server(models, settings, listener)


def check_exposure(settings: Settings) -> None:
    """Raise ConfigError if other machines could use the server without a key."""
    if settings.api_key or settings.named_api_keys or settings.insecure or _is_loopback(settings.host):
        return
    raise ConfigError(
        f"host {settings.host!r} is open to other machines, and no API key is set. Set one (--api-key, POOLKIT_API_KEY "
        "or api_key in poolkit.toml), listen on 127.0.0.1, or say --insecure to let everybody in."
    )


def run_server(models: Mapping[str, ServedModel], settings: Settings, listener: socket.socket) -> None:
    """Answer requests on a bound socket until a signal comes, then drain."""
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
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=CLOSE_CONNECTIONS_S,
    )
    gc.collect()
    gc.freeze()  # a full collection would look at every object of a loaded process again, for tens of milliseconds
    server = _DrainingServer(config, drain=drain, drain_timeout_s=settings.drain_timeout_s)
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    for name, served in models.items():
        logger.info("Serving %s for %r at http://%s:%d (docs: /docs)", name, served.task.name, shown_host, port)
    server.run(sockets=[listener])


class _DrainingServer(uvicorn.Server):
    """Uvicorn, but a signal first makes it refuse new requests and wait for those in flight.

    Uvicorn's own way closes the listener at once, so that nobody could read from /readyz that it is shutting down.
    """

    def __init__(self, config: uvicorn.Config, *, drain: Drain, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_timeout_s = drain_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain at the first signal; stop at once at the second."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._draining is not None:
            self.should_exit = self.force_exit = True
        else:
            self._drain.begin()
            self._draining = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        logger.info("Shutting down: %d requests to finish.", self._drain.in_flight)
        if not await self._drain.wait_idle(self._drain_timeout_s):
            logger.warning("%d requests were not done in %g s.", self._drain.in_flight, self._drain_timeout_s)
        self.should_exit = True


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"host {host!r} cannot be used: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror}. Choose another --port.") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
