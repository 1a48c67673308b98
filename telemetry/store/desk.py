"""The store as those see it who tell operators: channels, the escalation watch, and who waits for news."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any, Final, Self

from psycopg import errors as pg

from telemetry.store import deliveries, outbox, watch
from telemetry.store.link import Link
from telemetry.store.partitions import DAY_US
from telemetry.store.rows import OUTBOX_CHANNEL, moment
from telemetry.store.schema import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import Connection

    from geofence.escalation import EscalationPolicy
    from telemetry.store.deliveries import Backlog, Delivery, Notice, Settled
    from telemetry.store.outbox import OutboxRow

__all__ = ["Desk"]

_LOCK: Final = 0x52464348  # of advisory locks: who serves a channel


class Desk:
    """One connection, for one thread. Every method raises StoreUnavailable when trying again may help."""

    def __init__(self, link: Link, now_us: Callable[[], int] | None = None) -> None:
        self._link = link
        self._held: dict[str, Connection[Any]] = {}
        self._listening: Connection[Any] | None = None
        self._now_us = now_us or (lambda: time.time_ns() // 1000)

    @classmethod
    def open(cls, url: str, *, now_us: Callable[[], int] | None = None) -> Self:
        """Connect. now_us: the clock, for tests."""
        return cls(Link(url), now_us)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def now_us(self) -> int:
        """The clock."""
        return self._now_us()

    def hold(self, channel: str) -> bool:
        """Whether this connection serves the channel now; of several engines only one does.

        The hold ends with the connection, so ask before each round.
        """
        with self._link.use(f"holding channel {channel}") as connection:
            if self._held.get(channel) is not connection:  # locks count up: take each once
                key = zlib.crc32(channel.encode()) - 2**31
                row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK, key)).fetchone()
                if row != (True,):
                    return False
                self._held[channel] = connection
        return True

    # --- the broker -----------------------------------------------------------------------------

    def pending(self, limit: int, after_id: int = 0) -> list[OutboxRow]:
        """The oldest messages that the broker has not confirmed, in order."""
        with self._link.use("reading the outbox") as connection:
            return outbox.pending(connection, limit, after_id)

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Note that the broker has confirmed these."""
        with self._link.use("marking messages as sent") as connection:
            outbox.mark_sent(connection, ids)

    # --- queues ---------------------------------------------------------------------------------

    def take_over(self, channel: str, wants: Callable[[Notice], bool], limit: int) -> int:
        """Move messages of the outbox into the channel's queue; gives how many were looked at."""
        with self._link.use(f"taking messages over into channel {channel}") as connection:
            return deliveries.take_over(connection, channel, wants, limit, self._now_us())

    def due(self, channel: str, limit: int) -> list[Delivery]:
        """What to try now."""
        with self._link.use(f"reading the queue of channel {channel}") as connection:
            return deliveries.due(connection, channel, limit, self._now_us())

    def settle(self, settled: Sequence[Settled]) -> None:
        """Note how tries ended."""
        with self._link.use("noting deliveries") as connection, connection.transaction():
            deliveries.settle(connection, settled, self._now_us())

    def next_due_us(self, channel: str) -> int | None:
        """When the channel's next try is due; None: nothing waits."""
        with self._link.use(f"reading the queue of channel {channel}") as connection:
            return deliveries.next_due_us(connection, channel)

    def backlogs(self) -> list[Backlog]:
        """What every channel has before it."""
        with self._link.use("counting what channels owe") as connection:
            return deliveries.backlogs(connection)

    def live_alerts(self, device_id: str) -> tuple[int, str | None, str | None]:
        """How many of its alerts are to be dealt with and not quiet; severity and sentence of the worst."""
        with self._link.use("looking at a device's alerts") as connection:
            row = connection.execute(_LIVE_ALERTS, (device_id,)).fetchone()
        return (0, None, None) if row is None else (row[0], row[1], row[2])

    # --- time -----------------------------------------------------------------------------------

    def act_on_time(self, policy: Callable[[], EscalationPolicy]) -> tuple[int, bool]:
        """Escalate what is due and end suppressions: how many were looked at, and whether more may be."""
        with self._link.use("looking after open alerts") as connection:
            try:
                return watch.act_on_time(connection, self._now_us(), policy)
            except pg.CheckViolation:  # no batch was committed for days: today has no partition
                layout = layout_of(connection)[1]
                if layout is None:
                    raise
                layout.ensure(connection, "outbox", [self._now_us() // DAY_US])
                return watch.act_on_time(connection, self._now_us(), policy)

    def next_deadline_us(self) -> int | None:
        """When ``act_on_time`` has something to do next."""
        with self._link.use("looking after open alerts") as connection:
            return watch.next_deadline_us(connection)

    def forget_deliveries(self) -> int:
        """Drop what was delivered or given up more than 30 days ago."""
        before = moment(self._now_us() - deliveries.KEPT_DAYS * DAY_US)
        with self._link.use("dropping old deliveries") as connection:
            return deliveries.forget(connection, before)

    def news(self, timeout_s: float) -> bool:
        """Wait until something is committed to the outbox; whether something was.

        True at once on a new connection: nobody can say what was missed before it listened.
        """
        with self._link.use("listening to the outbox") as connection:
            if self._listening is not connection:
                connection.execute(f"LISTEN {OUTBOX_CHANNEL}")
                self._listening = connection
                return True
            return any(True for _ in connection.notifies(timeout=timeout_s, stop_after=1))


_LIVE_ALERTS: Final = """
SELECT count(*) OVER (), severity, sentence FROM alerts
WHERE device_id = %s AND state IN ('open', 'acknowledged') AND suppression_id IS NULL
ORDER BY array_position(ARRAY['critical', 'high', 'low', 'info'], severity), alert_id DESC LIMIT 1
"""
