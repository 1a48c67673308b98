"""From the outbox to the broker: at least once, in order, and never in the way of deciding."""

from __future__ import annotations

from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING, Final

from telemetry.channels.worker import LOOK_S, Worker
from telemetry.columns import Outgoing

if TYPE_CHECKING:
    from telemetry.metrics import Metrics
    from telemetry.mqtt.session import Session
    from telemetry.store import OutboxRow
    from telemetry.store.desk import Desk

__all__ = ["Notifier"]

NAME: Final = "mqtt"
BATCH_ROWS: Final = 500
PUBLISH_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 1.0  # after a message that the broker did not confirm


class Notifier(Worker):
    """Publishes what the outbox holds.

    It marks a row as sent only after the broker's PUBACK, and stops at the first row that got none: the next
    round begins there again, so a receiver may see a message twice but never out of order.
    """

    def __init__(self, desk: Desk, session: Session, metrics: Metrics) -> None:
        super().__init__("notifier", desk)
        self._session = session
        self._metrics = metrics

    def turn(self) -> float:
        """Publish one batch."""
        if not self._desk.hold(NAME):
            return LOOK_S  # another engine publishes
        rows = self._desk.pending(BATCH_ROWS)
        if not rows:
            return LOOK_S
        messages = [messages_of(row) for row in rows]
        sent = iter(self._session.publish(list(chain(*messages)), PUBLISH_TIMEOUT_S))
        whole = [all(list(islice(sent, len(parts)))) for parts in messages]
        confirmed = [row.id for row, _ in takewhile(lambda pair: pair[1], zip(rows, whole, strict=True))]
        if confirmed:
            self._desk.mark_sent(confirmed)
            self._metrics.notifications.inc(len(confirmed))
        return 0.0 if len(confirmed) == len(rows) else RETRY_S


def messages_of(row: OutboxRow) -> list[Outgoing]:
    """What is published for a row: its message, and an empty one where a retained one ends with it."""
    messages = [Outgoing(row.alert_id, row.device_id, row.topic, row.payload, row.retain)]
    if row.clears is not None:
        messages.append(Outgoing(row.alert_id, row.device_id, row.clears, b"", retain=True))
    return messages
