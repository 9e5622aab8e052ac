"""Seconds of requests by stage, from the server's own metrics while one client asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.compare.online import Running, generate_load

__all__ = ["STAGES", "Profile", "profile"]

STAGES = ("decode", "pre_process", "tokenize", "queue", "forward", "post_process", "encode")
"""In the order in which a request goes through them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The mean request of one kind.

    Attributes:
        name: of the kind.
        requests: so many were measured.
        client_ms: until the client had the answer.
        server_ms: from the request's first line to its answer's last byte, by the server's clock.
        stages_ms: by stage; in the queue those of one prompt.
        tokens: of a request.
        batches: forward passes of a request.
        is_overlapped: some of its prompts are tokenized while others run, so that the stages add up to more.
    """

    name: str
    requests: int
    client_ms: float
    server_ms: float
    stages_ms: Mapping[str, float]
    tokens: float
    batches: float
    is_overlapped: bool

    @property
    def other_ms(self) -> float:
        """Return what is left: HTTP, and handing over between threads."""
        return self.client_ms - sum(self.stages_ms.values())


def profile(server: Running, model: str, name: str, inputs: Sequence[Sequence[str]], *, seconds: float) -> Profile:
    """Ask a server one request after the other for some seconds."""
    requests = [server.server.request(texts, model) for texts in inputs]
    order = {"port": server.port, "requests": requests, "clients": 1, "seconds": seconds}
    generate_load(order)  # everything is warm after these
    before = _scrape(server.port)
    answer = generate_load(order)
    after = _scrape(server.port)
    if answer["failures"]:
        raise SystemExit(f"{answer['failures']} requests failed: {answer['example']}")
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    count = round(grown["requests"])
    prompts = grown["prompts"] / count
    stages_ms = {stage: 1000 * grown.get(stage, 0.0) / count for stage in STAGES}
    stages_ms["queue"] /= prompts
    return Profile(
        name=name,
        requests=count,
        client_ms=mean(answer["latencies_ms"]),
        server_ms=1000 * grown["seconds"] / count,
        stages_ms=stages_ms,
        tokens=grown["tokens"] / count,
        batches=grown["batches"] / count,
        is_overlapped=len(inputs[0]) > 1,
    )


def _scrape(port: int) -> dict[str, float]:
    """Return the sums that are told of requests for embeddings."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = _key(sample.name, sample.labels)
            if key:
                found[key] = found.get(key, 0.0) + sample.value
    return found


def _key(name: str, labels: Mapping[str, str]) -> str:
    match name:
        case "poolkit_request_seconds_count" if labels["route"] == "/v1/embeddings":
            return "requests"
        case "poolkit_request_seconds_sum" if labels["route"] == "/v1/embeddings":
            return "seconds"
        case "poolkit_stage_seconds_total":
            return labels["stage"]
        case "poolkit_hook_seconds_sum" if labels["hook"] in STAGES:
            return labels["hook"]
        case "poolkit_tokens_total":
            return "tokens"
        case "poolkit_batches_total":
            return "batches"
        case "poolkit_prompts_total":
            return "prompts"
        case _:
            return ""
