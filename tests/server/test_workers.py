"""Several processes on one port: one server to those who ask, count and stop it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from processes import Server, embed, read_all, serving, wait_for
from prometheus_client.core import Metric

from poolkit.server.metrics import add_up


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "gate", workers=2) as server:
        yield server


def workers_of(server: Server) -> list[int]:
    """Return the ids of the processes that serve: those that multiprocessing has spawned."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return b""


def answered(server: Server) -> float:
    name = 'poolkit_requests_total{route="/v1/embeddings",status="200"}'
    return sum(float(line.rpartition(" ")[2]) for line in server.metrics() if line.startswith(name))


def post(server: Server) -> int:
    return httpx.post(f"{server.url}/v1/embeddings", json={"input": "a"}, timeout=60).status_code


def log_of(server: Server) -> str:
    return server.gate.with_suffix(".log").read_text()


def wait_until_told(server: Server) -> None:
    wait_for(lambda: "INFO Serving" in log_of(server))


def test_any_worker_tells_the_counts_of_all(server):
    wait_until_told(server)
    server.gate.touch()
    assert [post(server) for _ in range(30)] == [200] * 30
    assert [answered(server) for _ in range(10)] == [30.0] * 10
    models = [line for line in server.metrics() if line.startswith("poolkit_model_info")]
    assert models == ['poolkit_model_info{model="fake",task="embed"} 1.0']


def test_the_address_is_told_once_all_are_ready(server):
    wait_until_told(server)
    assert log_of(server).count("INFO Serving fake for 'embed' at http://127.0.0.1:") == 1


def test_a_worker_that_ends_is_replaced_and_what_it_was_known_to_have_counted_stays(server):
    wait_until_told(server)
    server.gate.touch()
    assert [post(server) for _ in range(10)] == [200] * 10
    assert answered(server) == 10.0
    first, second = workers_of(server)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(workers_of(server)) == 2 and first not in workers_of(server))
    assert second in workers_of(server)
    assert [post(server) for _ in range(10)] == [200] * 10
    assert answered(server) == 20.0
    assert "ERROR Worker 0 ended (exit code -9). Starting another." in log_of(server) or (
        "ERROR Worker 1 ended (exit code -9). Starting another." in log_of(server)
    )


@pytest.mark.parametrize("is_group", [False, True], ids=["SIGTERM", "Ctrl-C to all of them"])
def test_all_workers_answer_what_was_accepted_before_they_end(server, is_group):
    wait_until_told(server)
    with ThreadPoolExecutor(1) as thread:
        accepted = thread.submit(post, server)
        wait_for(lambda: server.is_reached)
        if is_group:
            for pid in (server.process.pid, *workers_of(server)):
                os.kill(pid, signal.SIGINT)
        else:
            server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "INFO Shutting down 2 workers." in log_of(server))
        assert server.process.poll() is None
        server.gate.touch()
        assert accepted.result() == 200
    assert server.process.wait(timeout=30) == 0


def test_a_second_signal_stops_all_workers_at_once(server):
    wait_until_told(server)
    with server.connect() as client:
        client.sendall(embed())
        wait_for(lambda: server.is_reached)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "INFO Shutting down 2 workers." in log_of(server))
        server.process.send_signal(signal.SIGTERM)
        assert b"The server was shut down before this request was done." in read_all(client)
        server.gate.touch()  # a thread cannot be stopped: the model's last forward pass has to end
    assert server.process.wait(timeout=30) == 0


def test_workers_whose_parent_is_killed_end_too(server):
    wait_until_told(server)
    pids = workers_of(server)
    server.process.kill()
    wait_for(lambda: not any(is_running(pid) for pid in pids))


def test_a_worker_that_cannot_start_ends_the_server_with_its_reason(tmp_path):
    gate = tmp_path / "gate"
    gate.with_suffix(".broken").touch()
    with serving(gate, workers=2, is_awaited=False) as server:
        assert server.process.wait(timeout=60) == 1
    assert log_of(server).rstrip().endswith("poolkit.errors.ModelError: the weights are not there")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def metric(kind: str, *samples: tuple[str, dict[str, str], float]) -> Metric:
    made = Metric("a", "A metric.", kind)
    for sample in samples:
        made.add_sample(*sample)
    return made


def test_counts_add_up_and_facts_and_times_do_not():
    counts = [metric("counter", ("a_total", {"x": "1"}, 2.0), ("a_created", {"x": "1"}, time)) for time in (9.0, 5.0)]
    [added] = add_up([[one] for one in counts])
    assert [(sample.name, sample.value) for sample in added.samples] == [("a_total", 4.0), ("a_created", 5.0)]
    [fact] = add_up([[metric("info", ("a_info", {"x": "1"}, 1.0))]] * 3)
    assert [sample.value for sample in fact.samples] == [1.0]
    now = metric("gauge", ("a", {}, 3.0))
    assert [sample.value for sample in add_up([[now], [now]])[0].samples] == [6.0]
    assert add_up([[now]], only_counts=True) == []
