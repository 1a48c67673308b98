"""Everybody who tells operators, started and stopped together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from telemetry.alerts.notifier import Notifier
from telemetry.channels.channel import Courier
from telemetry.channels.home_assistant import HomeAssistant
from telemetry.channels.mail import Mail
from telemetry.channels.meter import Meter
from telemetry.channels.watch import EscalationWatch
from telemetry.channels.webhook import Webhook
from telemetry.channels.worker import LOOK_S, Worker
from telemetry.store.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Callable

    from geofence.escalation import EscalationPolicy
    from telemetry.channels.channel import Channel
    from telemetry.config import Settings
    from telemetry.metrics import Metrics
    from telemetry.mqtt.session import Session

__all__ = ["Dispatch"]

SHORT_STOP_S: Final = 0.2  # of workers after the first: their rows wait for the next start


class _Ear(Worker):
    """Hears of every commit to the outbox, whoever made it, and wakes the others."""

    def __init__(self, desk: Desk, wake: Callable[[], None]) -> None:
        super().__init__("outbox notices", desk)
        self._wake_others = wake

    def turn(self) -> float:
        if not self._stopping.is_set() and self._desk.news(LOOK_S / 10):
            self._wake_others()
        return 0.0


class Dispatch:
    """The broker's notifier, a courier for each channel of the settings, and the escalation watch."""

    def __init__(self, settings: Settings, database_url: str, session: Session, metrics: Metrics) -> None:
        self._database_url = database_url
        channels: list[Channel] = [Webhook(webhook) for webhook in settings.webhooks]
        if settings.email is not None:
            channels.append(Mail(settings.email))
        if settings.home_assistant is not None:
            channels.append(
                HomeAssistant(
                    settings.home_assistant, settings.mqtt_root, settings.share, session, self._desk()
                )
            )
        self._workers: list[Worker] = [Notifier(self._desk(), session, metrics)]
        self._workers += [Courier(channel, self._desk(), metrics) for channel in channels]
        self._workers += [_Ear(self._desk(), self.wake), Meter(self._desk(), metrics)]

    def _desk(self) -> Desk:
        return Desk.open(self._database_url)

    def start(self) -> None:
        """Begin to tell."""
        for worker in self._workers:
            worker.start()

    def watch(self, policy: Callable[[], EscalationPolicy]) -> None:
        """Begin to escalate: not before the rules in force are known."""
        watch = EscalationWatch(self._desk(), policy)
        self._workers.append(watch)
        watch.start()

    def wake(self) -> None:
        """Say that rows were committed; from any thread."""
        for worker in self._workers:
            if not isinstance(worker, _Ear):
                worker.wake()

    def stop(self, timeout_s: float) -> None:
        """Publish what is left, then end; what can't be told in time waits for the next start."""
        for worker in self._workers[1:]:
            worker.ask_to_stop()  # all at once; then wait for each
        self._workers[0].stop(timeout_s)
        for worker in self._workers[1:]:
            worker.stop(SHORT_STOP_S)
