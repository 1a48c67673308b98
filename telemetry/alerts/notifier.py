"""From the outbox to the broker: at least once, in order, and never in the way of deciding."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from telemetry.store import StoreError

if TYPE_CHECKING:
    from telemetry.metrics import Metrics
    from telemetry.mqtt.session import Session
    from telemetry.store import Store

__all__ = ["Notifier"]

log = logging.getLogger(__name__)

POLL_S: Final = 1.0  # rows written by the API (an operator's step) wake nobody here, so look this often
BATCH_ROWS: Final = 500
PUBLISH_TIMEOUT_S: Final = 10.0


class Notifier(threading.Thread):
    """A thread with its own database connection that publishes what the outbox holds.

    It marks a row as sent only after the broker's PUBACK, and stops at the first row that got none: the next
    round begins there again, so a receiver may see a message twice but never out of order.
    """

    def __init__(self, store: Store, session: Session, metrics: Metrics) -> None:
        super().__init__(name="notifier", daemon=True)
        self._store = store
        self._session = session
        self._metrics = metrics
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """Say that rows were committed."""
        self._wake.set()

    def run(self) -> None:
        """Publish until stopped; errors are logged and retried."""
        while True:
            stopping = self._stopping.is_set()
            try:
                while self._publish_some():
                    pass
            except StoreError as error:
                log.warning("the outbox can't be read: %s", error)
            if stopping:
                return
            self._wake.wait(POLL_S)
            self._wake.clear()

    def stop(self, timeout_s: float) -> None:
        """Publish what is left, then end; give up after ``timeout_s``: the rows stay for the next start."""
        self._stopping.set()
        self._wake.set()
        self.join(timeout_s)

    def _publish_some(self) -> bool:
        """Publish one batch; say whether more may be waiting."""
        rows = self._store.pending(BATCH_ROWS, 0)
        self._metrics.outbox_waiting.set(len(rows))
        if not rows:
            return False
        sent = self._session.publish(rows, PUBLISH_TIMEOUT_S)
        confirmed = [row.id for row, ok in zip(rows, sent, strict=True) if ok]
        if confirmed:
            self._store.mark_sent(confirmed)
            self._metrics.notifications.inc(len(confirmed))
        return len(confirmed) == len(rows) == BATCH_ROWS
