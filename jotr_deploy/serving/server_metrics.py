"""Counters of the server, in the text format of Prometheus. No label is taken from a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from jotr_deploy.serving.batched_session import SIZES

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class ServerMetrics:
    """Counters, gauges and histograms of `/metrics`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "jotr_requests", "Requests by endpoint and HTTP status.", ["endpoint", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "jotr_request_seconds", "From the head of a request to its answer.", ["endpoint"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.rejected = Counter(
            "jotr_rejected", "Requests that the server had no room for.", ["reason"], registry=registry
        )
        self.cancelled = Counter("jotr_cancelled", "Requests whose client left before the answer.", registry=registry)
        self.people = Counter("jotr_people", "People recovered.", registry=registry)
        self.admitted = Gauge("jotr_admitted", "Requests being worked on or waiting.", registry=registry)
        self.ready = Gauge("jotr_ready", "1 while new requests are accepted.", registry=registry)
        self.stage_seconds = Histogram(
            "jotr_stage_seconds", "Stage of a request, waiting included.", ["stage"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.network_seconds = Histogram(
            "jotr_network_seconds", "Call of a network.", ["network"], buckets=SECONDS, registry=registry
        )
        self.network_queue_seconds = Histogram(
            "jotr_network_queue_seconds", "Wait of a request for a network.", ["network"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.network_batch_size = Histogram(
            "jotr_network_batch_size", "Rows in a call of a network.", ["network"], buckets=SIZES, registry=registry
        )

    def observer(self, network: str) -> Callable[[Sequence[float], float, int], None]:
        """The `Observe` of a network's session."""

        def observe(waits_s: Sequence[float], took_s: float, rows: int) -> None:
            for wait_s in waits_s:
                self.network_queue_seconds.labels(network).observe(wait_s)
            self.network_seconds.labels(network).observe(took_s)
            self.network_batch_size.labels(network).observe(rows)

        return observe

    def stages(self, stages_s: Mapping[str, float]) -> None:
        """Add the stages of one request."""
        for stage, took_s in stages_s.items():
            self.stage_seconds.labels(stage).observe(took_s)

    def text(self) -> bytes:
        """Everything in the format of Prometheus."""
        return generate_latest(self.registry)
