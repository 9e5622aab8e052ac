"""Servers in processes of their own, for tests with real sockets and real signals."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

TESTS = Path(__file__).parents[1]
TLS = Path(__file__).parent / "tls"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    gate: Path
    port: int
    uds: str | None = None
    is_tls: bool = False

    def connect(self) -> socket.socket:
        if self.uds is not None:
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect(self.uds)
            except ConnectionError:
                client.close()
                raise
            return client
        client = socket.create_connection(("127.0.0.1", self.port))
        if self.is_tls:
            context = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
            return context.wrap_socket(client, server_hostname="localhost")
        return client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def metrics(self) -> list[str]:
        return httpx.get(f"{self.url}/metrics").text.splitlines()

    @property
    def is_reached(self) -> bool:
        return self.gate.with_suffix(".reached").exists()


@contextmanager
def serving(gate: Path, *, is_awaited: bool = True, **settings: object) -> Iterator[Server]:
    """Yield a server, ready unless it is not awaited. Its log is beside the gate."""
    given = {"port": 0, "drain_timeout_s": 60, **settings}
    command = [sys.executable, str(TESTS / "server" / "held_server.py"), str(gate), json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with (
        gate.with_suffix(".log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        uds = settings.get("uds")
        server = Server(process, gate, int(address) if uds is None else 0, uds, "ssl_certfile" in settings)
        if is_awaited:
            wait_for(lambda: is_ready(server))
        yield server
        process.kill()


def is_ready(server: Server) -> bool:
    try:
        with server.connect() as client:
            client.sendall(request("GET", "/readyz", close=True))
            return read_all(client).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something in the other process has happened; the test's own timeout is the limit."""
    while not condition():
        time.sleep(0.01)


def request(method: str, path: str, body: bytes = b"", *fields: str, close: bool = False) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *fields]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def embed(text: str = "a", *fields: str, close: bool = False) -> bytes:
    body = json.dumps({"input": text}).encode()
    return request("POST", "/v1/embeddings", body, *fields, close=close)


def read_all(client: socket.socket) -> bytes:
    """Return what a server sends until it closes the connection."""
    chunks = []
    try:
        while chunk := client.recv(1 << 16):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)
