"""Metrics for Prometheus: requests by route and status, plugins' hooks, and the engine's own counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from poolkit.errors import HookError
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Observe
from poolkit.server.drain import Drain

__all__ = ["Metrics", "add_up", "render_sum"]

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

HOOK_BUCKETS_S = (0.0001, 0.001, 0.01, 0.1, 1, 10)


class Metrics:
    """The counts of one app, in a registry of their own."""

    def __init__(self, models: Mapping[str, ServedModel], *, drain: Drain) -> None:
        self._registry = CollectorRegistry()
        self._answered: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter("poolkit_requests", "Requests answered.", ("route", "status"), registry=self._registry)
        self._seconds = Histogram(
            "poolkit_request_seconds",
            "Seconds from a request's first line to its answer's last byte.",
            ("route", "status"),
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._hook_failures = Counter(
            "poolkit_hook_failures", "Failures of plugins' hooks.", ("plugin", "task", "hook"), registry=self._registry
        )
        self._hook_seconds = Histogram(
            "poolkit_hook_seconds",
            "Seconds in plugins' hooks, without those of what a wrapper surrounds.",
            ("model", "plugin", "task", "operation", "hook"),
            buckets=HOOK_BUCKETS_S,
            registry=self._registry,
        )
        models = _by_first_name(models)
        for name, model in models.items():
            for operation, bound in model.operations.items():
                bound.observe(self._observer(name, model.task.name, operation))
        self._registry.register(_Served(models, drain=drain))

    def count_request(self, *, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        children = self._answered.get((route, status))
        if children is None:  # `labels` takes longer than all the rest
            labels = route, str(int(status))
            children = self._requests.labels(*labels), self._seconds.labels(*labels)
            self._answered[route, status] = children
        count, duration = children
        count.inc()
        duration.observe(seconds)

    def count_refusal(self, status: int) -> None:
        """Count one request that the app has not seen."""
        self._requests.labels("<none>", str(int(status))).inc()

    def _observer(self, model: str, task: str, operation: str) -> Observe:
        """Return what counts the calls of one operation's hooks."""
        children: dict[tuple[str, str], Histogram] = {}

        def observe(hook: str, plugin: str, seconds: float) -> None:
            child = children.get((hook, plugin))
            if child is None:
                child = children[hook, plugin] = self._hook_seconds.labels(model, plugin, task, operation, hook)
            child.observe(seconds)

        return observe

    def count_failure(self, error: Exception) -> None:
        """Count `error` if a plugin's hook is to blame."""
        if isinstance(error, HookError):
            self._hook_failures.labels(error.plugin, error.task, error.hook).inc()

    def collect(self) -> list[Metric]:
        """Return all counts. They pickle."""
        return list(self._registry.collect())

    async def render(self) -> bytes:
        """Return all counts in Prometheus' text format."""
        return await asyncio.to_thread(generate_latest, self._registry)


def render_sum(reports: Iterable[Iterable[Metric]]) -> bytes:
    """Return what several processes have counted, as if one had, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(add_up(reports)))
    return generate_latest(registry)


def add_up(reports: Iterable[Iterable[Metric]], *, only_counts: bool = False) -> list[Metric]:
    """Return the sums over several processes; facts (`info`) and times of creation are not added.

    Args:
        reports: of each process.
        only_counts: leave out gauges and facts, which say how things are now.
    """
    sums: dict[str, tuple[Metric, dict[tuple[str, frozenset[tuple[str, str]]], Sample]]] = {}
    for metric in (metric for report in reports for metric in report):
        if only_counts and metric.type in ("gauge", "info"):
            continue
        _, samples = sums.setdefault(metric.name, (metric, {}))
        for sample in metric.samples:
            key = sample.name, frozenset(sample.labels.items())
            known = samples.get(key)
            if known is None:
                value = sample.value
            elif metric.type == "info" or sample.name.endswith("_created"):
                value = min(known.value, sample.value)
            else:
                value = known.value + sample.value
            samples[key] = sample._replace(value=value)
    return [_with_samples(metric, samples.values()) for metric, samples in sums.values()]


def _with_samples(metric: Metric, samples: Iterable[Sample]) -> Metric:
    copy = Metric(metric.name, metric.documentation, metric.type, metric.unit)
    copy.samples = list(samples)
    return copy


class _Collected(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


class _Served(Collector):
    """Reads the served models' own counts at each scrape, so that nothing is counted twice."""

    def __init__(self, models: Mapping[str, ServedModel], *, drain: Drain) -> None:
        self._models = models
        self._drain = drain

    def collect(self) -> Iterator[Metric]:
        served = InfoMetricFamily("poolkit_model", "What is served.")
        prompts = CounterMetricFamily("poolkit_prompts", "Prompts that are over.", labels=("model", "outcome"))
        tokens = CounterMetricFamily("poolkit_tokens", "Tokens that ran through the model.", labels=("model",))
        batches = CounterMetricFamily("poolkit_batches", "Forward passes.", labels=("model",))
        stages = CounterMetricFamily(
            "poolkit_stage_seconds",
            "Seconds in the stages of requests: in the queue those of each prompt, in the forward pass of each batch.",
            labels=("model", "stage"),
        )
        waiting = GaugeMetricFamily("poolkit_prompts_waiting", "Prompts in the queue.", labels=("model",))
        for name, model in self._models.items():
            stats = model.stats()
            served.add_metric((), {"model": name, "task": model.task.name})
            prompts.add_metric((name, "done"), stats.prompts_done)
            prompts.add_metric((name, "failed"), stats.prompts_failed)
            prompts.add_metric((name, "cancelled"), stats.prompts_cancelled)
            tokens.add_metric((name,), stats.tokens_done)
            batches.add_metric((name,), stats.batches_done)
            waiting.add_metric((name,), stats.prompts_waiting)
            for stage, seconds in model.stage_seconds().items():
                stages.add_metric((name, stage), seconds)
        yield from (served, prompts, tokens, batches, waiting, stages)
        yield GaugeMetricFamily("poolkit_requests_in_flight", "Requests being served.", value=self._drain.in_flight)


def _by_first_name(models: Mapping[str, ServedModel]) -> Mapping[str, ServedModel]:
    """Return each model once, however many names it has."""
    unique = {id(model): (name, model) for name, model in reversed(list(models.items()))}
    return dict(reversed(unique.values()))
