"""What a channel has to be, and the thread that serves it: take over, try, note, wait."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from telemetry.alerts.events import EVENT_TYPE, AlertEvent
from telemetry.channels.worker import LOOK_S, Worker
from telemetry.store.deliveries import Settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.metrics import Metrics
    from telemetry.store.deliveries import Delivery, Notice
    from telemetry.store.desk import Desk

__all__ = ["RETRY_AFTER_S", "Channel", "Courier", "Outcome", "change_of", "read_event"]

log = logging.getLogger(__name__)

TAKE_ROWS: Final = 200
TRY_AT_ONCE: Final = 8  # of one receiver: one message that it dawdles over does not hold up the next ones
# From a failed try to the next, about a day in all; then the message is dead until somebody retries it.
RETRY_AFTER_S: Final = (5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
JITTER: Final = 0.2  # so that all messages of an outage do not come back in one moment

_events = msgspec.json.Decoder(AlertEvent)


def read_event(payload: bytes) -> AlertEvent:
    """The event that a message of the outbox holds."""
    return _events.decode(payload)


def change_of(event: AlertEvent) -> str:
    """One of ``telemetry.alerts.events.CHANGES``."""
    return event.type.removeprefix(f"{EVENT_TYPE}.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try ended.

    error   : what went wrong, without addresses' secrets; None: it was delivered
    for_good: trying again does not help
    after_s : not before so many seconds, as the receiver asked; None: it did not
    """

    error: str | None = None
    for_good: bool = False
    after_s: float | None = None


class Channel(Protocol):
    """One receiver. All calls come from one thread."""

    @property
    def name(self) -> str:
        """Its place in the tables, such as ``webhook:pager``."""

    def wants(self, notice: Notice) -> bool:
        """Whether this receiver is to have the message."""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Try each once; never raises, and ends within a bounded time. They are about different devices."""

    def close(self) -> None:
        """Nothing more will be delivered."""


class Courier(Worker):
    """Serves one channel. At least once, in order for each device."""

    def __init__(self, channel: Channel, desk: Desk, metrics: Metrics) -> None:
        super().__init__(f"courier {channel.name}", desk)
        self._channel = channel
        self._metrics = metrics

    def turn(self) -> float:
        """Take new messages over, try what is due."""
        desk, name = self._desk, self._channel.name
        if not desk.hold(name):
            return LOOK_S  # another engine serves it
        while desk.take_over(name, self._channel.wants, TAKE_ROWS) == TAKE_ROWS:
            pass
        due = desk.due(name, TRY_AT_ONCE)
        if not due:
            next_us = desk.next_due_us(name)
            return LOOK_S if next_us is None else max((next_us - desk.now_us()) / 1e6, 0.001)
        outcomes = self._channel.deliver(due)
        desk.settle(
            [self._settled(delivery, outcome) for delivery, outcome in zip(due, outcomes, strict=True)]
        )
        return 0.0

    def close(self) -> None:
        """Close the channel too."""
        self._channel.close()
        super().close()

    def _settled(self, delivery: Delivery, outcome: Outcome) -> Settled:
        name = self._channel.name
        if outcome.error is None:
            self._metrics.deliveries.labels(channel=name, outcome="delivered").inc()
            return Settled(delivery.delivery_id)
        again_us = None
        if not outcome.for_good and delivery.attempts < len(RETRY_AFTER_S):
            wait_s = RETRY_AFTER_S[delivery.attempts] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            again_us = self._desk.now_us() + round(max(wait_s, outcome.after_s or 0) * 1e6)
        self._metrics.deliveries.labels(channel=name, outcome="dead" if again_us is None else "failed").inc()
        log.warning(
            "%s: delivery %d of alert %d, try %d: %s%s",
            name,
            delivery.delivery_id,
            delivery.alert_id,
            delivery.attempts + 1,
            outcome.error,
            "; given up until somebody retries it" if again_us is None else "",
        )
        return Settled(delivery.delivery_id, outcome.error, again_us)
