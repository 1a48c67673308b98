"""Keeps the gauges that need the database: what each channel has before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.channels.worker import LOOK_S, Worker

if TYPE_CHECKING:
    from telemetry.metrics import Metrics
    from telemetry.store.desk import Desk

__all__ = ["Meter"]


class Meter(Worker):
    """Counts every few seconds, so that to read the metrics costs the database nothing."""

    def __init__(self, desk: Desk, metrics: Metrics) -> None:
        super().__init__("meter", desk)
        self._metrics = metrics

    def wake(self) -> None:
        """News are no matter here: it counts by the clock, and hears a stop at the next count."""

    def ask_to_stop(self) -> None:
        """End at once."""
        self._stopping.set()
        self._wake.set()

    def turn(self) -> float:
        """Count once."""
        now_us = self._desk.now_us()
        for backlog in self._desk.backlogs():
            oldest_s = 0.0 if backlog.oldest_us is None else max(now_us - backlog.oldest_us, 0) / 1e6
            self._metrics.channel_waiting.labels(channel=backlog.channel).set(backlog.waiting)
            self._metrics.channel_dead.labels(channel=backlog.channel).set(backlog.dead)
            self._metrics.channel_oldest_s.labels(channel=backlog.channel).set(oldest_s)
        return LOOK_S
