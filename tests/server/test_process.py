"""The server in a process of its own: real sockets, the real OpenAI client, real signals."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from processes import Server, serving, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a server in a process of its own, whose model waits for a file."""
    with serving(tmp_path / "gate") as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """Return where the server answers."""
    return server.url


@pytest.fixture
def gate(server: Server) -> Path:
    """Return the file that lets the server's model answer."""
    return server.gate


@pytest.fixture
def process(server: Server) -> subprocess.Popen[str]:
    """Return the server's process."""
    return server.process


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
