"""Counters and gauges of one engine, for Prometheus and for ``/readyz``."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics", "Stopwatch"]


class Metrics:
    """What the engine counts. Each instance has its own registry, so two in one process don't mix."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.messages = Counter("ringfence_messages", "MQTT messages received", registry=registry)
        self.pings = Counter("ringfence_pings", "pings stored", registry=registry)
        self.duplicates = Counter(
            "ringfence_duplicate_pings", "pings that were there already", registry=registry
        )
        self.late = Counter(
            "ringfence_late_pings", "pings older than their device's state", registry=registry
        )
        self.rejects = Counter("ringfence_quarantined", "payloads quarantined", ["reason"], registry=registry)
        self.transitions = Counter(
            "ringfence_transitions", "transitions decided", ["kind"], registry=registry
        )
        self.violations = Counter(
            "ringfence_violation_changes", "violation rows decided", ["change"], registry=registry
        )
        self.results = Counter("ringfence_command_results", "results of commands received", registry=registry)
        self.notifications = Counter(
            "ringfence_notifications", "alert messages that the broker confirmed", registry=registry
        )
        self.deliveries = Counter(
            "ringfence_deliveries", "tries to deliver a message", ["channel", "outcome"], registry=registry
        )
        self.failures = Counter(
            "ringfence_batches_failed", "batches that met an unexpected error", registry=registry
        )
        self.open_alerts = Gauge("ringfence_open_alerts", "alerts whose violation lasts", registry=registry)
        self.channel_waiting = Gauge(
            "ringfence_channel_waiting", "messages that a channel owes", ["channel"], registry=registry
        )
        self.channel_dead = Gauge(
            "ringfence_channel_dead", "messages that a channel gave up", ["channel"], registry=registry
        )
        self.channel_oldest_s = Gauge(
            "ringfence_channel_oldest_seconds",
            "age of the oldest message that a channel owes",
            ["channel"],
            registry=registry,
        )
        self.broker_up = Gauge(
            "ringfence_broker_up", "1: connected, every subscription granted", registry=registry
        )
        self.database_up = Gauge("ringfence_database_up", "1: the share can commit", registry=registry)
        self.beliefs = Gauge(
            "ringfence_beliefs", "pairs of a device and a zone that the engine holds", registry=registry
        )
        self.rules_version = Gauge(
            "ringfence_rules_version", "version of the rules in force", registry=registry
        )
        self.devices = Gauge("ringfence_devices", "devices known to the engine", registry=registry)
        self.watermark_lag_s = Gauge(
            "ringfence_watermark_lag_seconds", "now less the ingest watermark", registry=registry
        )
        self.step_s = Histogram(
            "ringfence_step_seconds",
            "time of a pipeline step for one batch",
            ["step"],
            buckets=(0.0005, 0.002, 0.005, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0),
            registry=registry,
        )
        self.latency_s = Histogram(
            "ringfence_commit_latency_seconds",
            "from the receipt of a batch's first message to its commit",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0),
            registry=registry,
        )

    def text(self) -> bytes:
        """The Prometheus text format."""
        return bytes(generate_latest(self.registry))

    def stored_pings(self) -> float:
        """How many pings this process has stored."""
        return self.registry.get_sample_value("ringfence_pings_total") or 0.0


class Stopwatch:
    """Times a step: ``with Stopwatch(histogram.labels(step="decode")): …``."""

    __slots__ = ("_began_s", "_observer")

    def __init__(self, observer: Any) -> None:
        self._observer = observer

    def __enter__(self) -> None:
        self._began_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._observer.observe(time.perf_counter() - self._began_s)
