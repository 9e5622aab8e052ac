"""Runs the server in this process until it is told to stop, and then lets every accepted request finish."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import math
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn

from poolkit.config import PluginConfig
from poolkit.errors import ConfigError
from poolkit.pipeline.served import ServedModel, load_model
from poolkit.registry import Registry
from poolkit.server.app import check_dialects, create_app
from poolkit.server.asgi import App
from poolkit.server.drain import Drain
from poolkit.server.protocol import GuardedProtocol, Limits
from poolkit.settings.settings import Settings

__all__ = ["serve"]

logger = logging.getLogger(__name__)

CLOSE_CONNECTIONS_S = 1
"""The least time that clients have to read their answers, once no request is being served."""


def serve(settings: Settings, plugins: PluginConfig) -> None:
    """Load the models and serve them until SIGTERM or SIGINT; a second signal stops at once.

    Raises:
        ConfigError: the address cannot be used, or is open to others without a key.
        ModelError, PluginError, TaskError, StartupError: as `load_model` does.
    """
    check_exposure(settings)
    check_dialects(Registry.load(plugins), dialects=settings.dialects)
    with ExitStack() as stack:
        listener = stack.enter_context(bind(settings))  # before the weights are read: a taken port fails at once
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
    is_local = settings.uds is not None or _is_loopback(settings.host)
    if settings.api_key or settings.named_api_keys or settings.insecure or is_local:
        return
    raise ConfigError(
        f"host {settings.host!r} is open to other machines, and no API key is set. Set one (--api-key, POOLKIT_API_KEY "
        "or api_key in poolkit.toml), listen on 127.0.0.1, or say --insecure to let everybody in."
    )


def run_server(models: Mapping[str, ServedModel], settings: Settings, listener: socket.socket) -> None:
    """Answer requests on a bound socket until a signal comes, then drain.

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
    )
    server = _DrainingServer(
        _configure(app, settings),
        drain=drain,
        drain_timeout_s=settings.drain_timeout_s,
        on_start=lambda: _report_ready(models, settings, listener),
    )
    gc.collect()
    gc.freeze()  # a full collection would look at every object of a loaded process again, for tens of milliseconds
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


def _report_ready(models: Mapping[str, ServedModel], settings: Settings, listener: socket.socket) -> None:
    for name, served in models.items():
        logger.info("Serving %s for %r at %s (docs: /docs)", name, served.task.name, address_of(listener, settings))


def address_of(listener: socket.socket, settings: Settings) -> str:
    """Return where a server can be asked, for people."""
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.ssl_certfile else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _DrainingServer(uvicorn.Server):
    """Uvicorn, but a signal first makes it refuse new requests and wait for those in flight.

    Uvicorn's own way closes the listener at once, so that nobody could read from /readyz that it is shutting down.
    """

    def __init__(
        self, config: uvicorn.Config, *, drain: Drain, drain_timeout_s: float, on_start: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_timeout_s = drain_timeout_s
        self._on_start = on_start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_start()

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
        started = time.monotonic()
        if not await self._drain.wait_idle(self._drain_timeout_s):
            logger.warning("%d requests were not done in %g s.", self._drain.in_flight, self._drain_timeout_s)
        left_s = self._drain_timeout_s - (time.monotonic() - started)  # for answers that clients still read
        self.config.timeout_graceful_shutdown = max(CLOSE_CONNECTIONS_S, math.ceil(left_s))
        self.should_exit = True


@contextmanager
def bind(settings: Settings) -> Iterator[socket.socket]:
    """Yield the socket that the settings name, and close it at the end.

    Raises ConfigError where it cannot be listened on.
    """
    with ExitStack() as stack:
        if settings.uds is not None:
            listener = _bind_path(settings.uds)
            stack.callback(settings.uds.unlink, missing_ok=True)
        else:
            listener = _bind_port(settings.host, settings.port)
        stack.callback(listener.close)
        yield listener


def _bind_path(path: Path) -> socket.socket:
    """Return a Unix socket; one that a server left behind is replaced, one that somebody answers on is not."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _is_answered(path):
            path.unlink()
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigError(f"uds {str(path)!r} cannot be listened on: {error.strerror or error}.") from error
    return listener


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _bind_port(host: str, port: int) -> socket.socket:
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
