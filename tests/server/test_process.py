"""The server in a process of its own: real sockets, the real OpenAI client, real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return the file that lets the server's model answer."""
    return tmp_path / "gate"


@pytest.fixture
def process(gate: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a server in a process of its own."""
    command = [sys.executable, str(TESTS / "server" / "held_server.py"), str(gate)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


@pytest.fixture
def url(process: subprocess.Popen[str]) -> str:
    """Return where the server answers, once it does."""
    assert process.stdout is not None
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    wait_for(lambda: is_ready(url))
    return url


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.ConnectError:
        return False


def wait_for(condition) -> None:
    """Wait until something in the other process has happened; the test's own timeout is the limit."""
    while not condition():
        time.sleep(0.01)


def test_the_openai_client_gets_its_vectors(url, gate):
    gate.touch()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        assert [model.id for model in client.models.list()] == ["fake"]
        answer = client.embeddings.create(model="fake", input=["one text", "another"])
        assert [item.index for item in answer.data] == [0, 1]
        assert answer.usage.prompt_tokens == 7
        floats = client.embeddings.create(model="fake", input=["one text", "another"], encoding_format="float")
        for coded, plain in zip(answer.data, floats.data, strict=True):
            np.testing.assert_array_equal(np.asarray(coded.embedding, "f4"), np.asarray(plain.embedding, "f4"))
        with pytest.raises(openai.NotFoundError, match="This server serves: `fake`"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model="fake", input=[[999999]])


def test_sigterm_answers_what_was_accepted_refuses_what_is_new_and_exits_with_0(process, url, gate):
    with ThreadPoolExecutor(1) as thread, httpx.Client(base_url=url) as client:
        accepted = thread.submit(httpx.post, f"{url}/v1/embeddings", json={"input": "accepted"}, timeout=60)
        wait_for(gate.with_suffix(".reached").exists)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert client.post("/v1/embeddings", json={"input": "new"}).status_code == 503
        assert client.get("/livez").status_code == 200
        assert process.poll() is None
        gate.touch()
        answer = accepted.result()
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 1
    assert process.wait(timeout=30) == 0


def test_a_second_signal_does_not_wait(process, url, gate):
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(httpx.post, f"{url}/v1/embeddings", json={"input": "held"}, timeout=60)
        wait_for(gate.with_suffix(".reached").exists)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        process.send_signal(signal.SIGINT)
        answer = held.result()
        gate.touch()  # a thread cannot be stopped: the model's last forward pass has to end
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "The server was shut down before this request was done."
    assert process.wait(timeout=30) == 0
