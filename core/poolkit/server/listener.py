"""The socket that a server listens on, and who can reach it."""

from __future__ import annotations

import ipaddress
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from poolkit.errors import ConfigError
from poolkit.settings.settings import Settings

__all__ = ["address_of", "bind", "check_exposure"]


def check_exposure(settings: Settings) -> None:
    """Raise ConfigError if other machines could use the server without a key."""
    is_local = settings.uds is not None or _is_loopback(settings.host)
    if settings.api_key or settings.named_api_keys or settings.insecure or is_local:
        return
    raise ConfigError(
        f"host {settings.host!r} is open to other machines, and no API key is set. Set one (--api-key, POOLKIT_API_KEY "
        "or api_key in poolkit.toml), listen on 127.0.0.1, or say --insecure to let everybody in."
    )


def address_of(listener: socket.socket, settings: Settings) -> str:
    """Return where a server can be asked, for people."""
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.ssl_certfile else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


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
