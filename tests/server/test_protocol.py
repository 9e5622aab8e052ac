"""The HTTP protocol over real sockets: what clients do out of ignorance, haste or malice, and what becomes of them."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import TLS, Server, embed, read_all, request, serving, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    gate = tmp_path_factory.mktemp("server") / "gate"
    gate.touch()
    with serving(gate, head_timeout_s=0.2, body_timeout_s=0.2, max_body_bytes=1 << 22) as server:
        yield server


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Server]:
    """A server whose model waits for a file."""
    with serving(tmp_path / "gate") as server:
        yield server


def exchange(server: Server, *parts: bytes) -> bytes:
    with server.connect() as client:
        for part in parts:
            client.sendall(part)
        return read_all(client)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def told(answer: bytes) -> tuple[int, str, str]:
    """Return status, code and message of the one envelope."""
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert b"connection: close" in head.lower()
    return status(answer), error["code"], error["message"]


@pytest.mark.parametrize(
    "fields",
    [[f"X-{number}: a" for number in range(300)], ["X-Large: " + "a" * (1 << 17)], ["X-Large: " + "a" * (1 << 24)]],
    ids=["300 fields", "128 kB", "16 MB"],
)
def test_headers_that_are_too_large_are_refused(server, fields):
    with server.connect() as client:
        try:
            client.sendall(embed("a", *fields))
        except (BrokenPipeError, ConnectionResetError):
            assert len(fields[0]) > 1 << 20  # it did not want to hear the rest
            return
        code, message = "headers_too_large", "The request's headers are larger than 65536 bytes or more than 256."
        assert told(read_all(client)) == (431, code, message)


def test_a_url_that_is_too_long_is_refused(server):
    assert told(exchange(server, request("GET", "/" + "a" * (1 << 17))))[:2] == (431, "headers_too_large")


@pytest.mark.parametrize("fields", [[f"X-{number}: a" for number in range(200)], ["X-Large: " + "a" * (1 << 15)]])
def test_many_and_long_headers_are_taken_up_to_the_limit(server, fields):
    assert status(exchange(server, embed("a", *fields, close=True))) == 200


UPGRADES = {
    "h2c": ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: Upgrade, HTTP2-Settings"),
    "websocket": ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "TLS": ("Upgrade: TLS/1.0", "Connection: Upgrade"),
}


@pytest.mark.parametrize("name", UPGRADES)
@pytest.mark.parametrize("split", [None, 20, -40, -1])
def test_an_upgrade_is_ignored_and_the_request_keeps_its_body(server, name, split):
    sent = embed("one text", *UPGRADES[name])
    parts = [sent] if split is None else [sent[:split], sent[split:]]
    answer = exchange(server, *parts, request("GET", "/livez", close=True))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b'"prompt_tokens":4' in answer


def test_requests_with_upgrades_may_be_pipelined(server):
    answer = exchange(server, embed("a", *UPGRADES["h2c"]) * 5 + embed("a", close=True))
    assert answer.count(b"HTTP/1.1 200") == 6


def test_a_proxys_method_is_refused(server):
    assert told(exchange(server, b"CONNECT other:443 HTTP/1.1\r\nHost: other\r\n\r\n"))[:2] == (400, "bad_request")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/embe", embed()[:40]])
def test_a_head_that_does_not_come_is_answered_408(server, sent):
    assert told(exchange(server, sent)) == (408, "header_timeout", "The request's headers did not come in 0.2 s.")


def test_a_second_head_that_does_not_come_is_answered_408_too(server):
    answer = exchange(server, request("GET", "/livez"), b"GET /li")
    first, _, second = answer.partition(b"}HTTP/1.1")
    assert status(first) == 200
    assert told(b"HTTP/1.1" + second)[0] == 408


def test_a_body_that_does_not_come_is_answered_408(server):
    code, found, message = told(exchange(server, embed()[:-3]))
    assert (code, found) == (408, "body_timeout")
    assert message.startswith("The request body did not come in time: ")


def test_what_comes_after_the_answer_to_a_body_that_is_too_long_is_not_read_for_ever(server):
    with server.connect() as client:
        client.sendall(request("POST", "/v1/embeddings", b"x" * (1 << 23))[: (1 << 22) + 1000])
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 413")
        client.sendall(b"x")  # and then no more
        assert b"HTTP/1.1" not in read_all(client)


def test_content_length_and_chunks_together_are_refused(server):
    fields = ("Transfer-Encoding: chunked",)
    assert told(exchange(server, embed("a", *fields)))[:2] == (400, "bad_request")


def test_refusals_are_counted(server):
    exchange(server, b"nonsense\r\n\r\n")
    start = 'poolkit_requests_total{route="<none>",status="400"}'
    assert len([line for line in server.metrics() if line.startswith(start)]) == 1


def test_ten_pipelined_requests_have_their_answers(server):
    answer = exchange(server, embed() * 9 + embed(close=True))
    assert answer.count(b"HTTP/1.1 200") == 10


def test_a_client_that_has_closed_its_half_is_answered(held):
    with held.connect() as client:
        client.sendall(embed())
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: held.is_reached)
        held.gate.touch()
        answer = read_all(client)
    while answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status(answer) == 200


def test_a_client_that_has_gone_frees_its_place(held):
    with held.connect() as first:
        first.sendall(embed("held in the engine"))
        wait_for(lambda: held.is_reached)
        with held.connect() as leaver:
            leaver.sendall(embed("gives up"))
            wait_for(lambda: 'poolkit_prompts_waiting{model="fake"} 2.0' in held.metrics())
        wait_for(lambda: 'poolkit_prompts_total{model="fake",outcome="cancelled"} 1.0' in held.metrics())
        held.gate.touch()
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_answers_are_read_to_their_end_while_the_server_drains(held):
    held.gate.touch()
    texts = ["a b c"] * 40_000
    body = json.dumps({"input": texts}).encode()
    with held.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        client.sendall(request("POST", "/v1/embeddings", body))
        first = client.recv(100)
        held.process.send_signal(signal.SIGTERM)
        wait_for(lambda: has_closed_its_listener(held))
        head, _, start = (first + read_until(client, b"\r\n\r\n")).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        rest = read_all(client)
    assert length > 4_000_000  # more than the sockets' own buffers hold
    assert len(start) + len(rest) == length
    assert held.process.wait(timeout=30) == 0


def test_a_drain_does_not_wait_for_a_body_that_has_not_come(held):
    with held.connect() as client:
        client.sendall(embed()[:-3])
        held.process.send_signal(signal.SIGTERM)
        answer = read_all(client)
    assert (status(answer), b'"shutting_down"' in answer) == (503, True)
    assert held.process.wait(timeout=10) == 0


def test_tls_is_spoken(tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    files = {"ssl_certfile": str(TLS / "cert.pem"), "ssl_keyfile": str(TLS / "key.pem")}
    with serving(gate, **files) as server:
        assert status(exchange(server, embed(close=True))) == 200
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.sendall(embed())
            assert not read_all(plain).startswith(b"HTTP/1.1")


def test_a_unix_socket_is_served_and_gone_afterwards(tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    path = tmp_path / "socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with serving(gate, uds=str(path)) as server:
        assert status(exchange(server, embed(close=True))) == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
    assert not path.exists()


def read_until(client: socket.socket, end: bytes) -> bytes:
    read = b""
    while end not in read:
        read += client.recv(100)
    return read


def has_closed_its_listener(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    time.sleep(0.01)
    return False
