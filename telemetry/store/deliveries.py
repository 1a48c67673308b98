"""What channels owe their receivers: each channel takes the outbox over into a queue of its own.

A channel's place in the outbox moves on as soon as its queue has the messages, so it waits for no receiver
and no receiver waits for another. Within a queue the messages about one device keep their order: one that is
tried again holds back only those of its own device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telemetry.store.rows import moment, time_us_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from psycopg import Connection

__all__ = [
    "BACKLOGS",
    "Backlog",
    "Delivery",
    "Notice",
    "Settled",
    "backlogs",
    "due",
    "forget",
    "next_due_us",
    "settle",
    "take_over",
]

KEPT_DAYS: Final = 30  # of deliveries that were made or given up, as of the outbox


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of the outbox, for a channel that has to say whether it wants it."""

    alert_id: int
    device_id: str
    contact: dict[str, Any] | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a channel owes, with how often it was tried."""

    delivery_id: int
    alert_id: int
    device_id: str
    attempts: int
    created_us: int
    contact: dict[str, Any] | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """How a try ended. error: None, it was delivered. again_us: when to try again; None: never."""

    delivery_id: int
    error: str | None = None
    again_us: int | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a channel has before it. oldest_us: of the oldest message that waits; None: none does."""

    channel: str
    waiting: int
    dead: int
    oldest_us: int | None


def take_over(
    connection: Connection[Any], channel: str, wants: Callable[[Notice], bool], limit: int, now_us: int
) -> int:
    """Move up to ``limit`` messages of the outbox into the channel's queue; gives how many were looked at.

    A channel that was never there begins with what comes next.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT position FROM channels WHERE channel = %s FOR UPDATE", (channel,)
        ).fetchone()
        if row is None:
            connection.execute(
                "INSERT INTO channels (channel, position, changed_time)"
                " SELECT %s, coalesce(max(id), 0), %s FROM outbox ON CONFLICT DO NOTHING",
                (channel, moment(now_us)),
            )
            return 0
        rows = connection.execute(
            "SELECT id, alert_id, device_id, created_time, contact, payload FROM outbox"
            " WHERE id > %s AND alert_id <> 0 AND suppression_id IS NULL ORDER BY id LIMIT %s",
            (row[0], limit),
        ).fetchall()
        if not rows:
            return 0
        for outbox_id, alert_id, device_id, created_time, contact, payload in rows:
            if not wants(Notice(alert_id, device_id, contact, payload)):
                continue
            connection.execute(
                "INSERT INTO deliveries (outbox_id, alert_id, created_time, due_time, attempts, state,"
                " channel, device_id, contact, payload)"
                " SELECT id, alert_id, created_time, %s, 0, 'waiting', %s, device_id, contact, payload"
                " FROM outbox WHERE id = %s AND created_time = %s ON CONFLICT DO NOTHING",
                (moment(now_us), channel, outbox_id, created_time),
            )
        connection.execute(
            "UPDATE channels SET position = %s, changed_time = %s WHERE channel = %s",
            (rows[-1][0], moment(now_us), channel),
        )
        return len(rows)


def due(connection: Connection[Any], channel: str, limit: int, now_us: int) -> list[Delivery]:
    """What to try now: of each device the oldest that waits, those that were never tried first."""
    rows = connection.execute(
        "SELECT delivery_id, alert_id, device_id, attempts, created_time, contact, payload FROM deliveries d"
        " WHERE channel = %(channel)s AND state = 'waiting' AND due_time <= %(now)s AND NOT EXISTS ("
        "  SELECT FROM deliveries e WHERE e.channel = d.channel AND e.device_id = d.device_id"
        "  AND e.state = 'waiting' AND e.outbox_id < d.outbox_id)"
        " ORDER BY attempts > 0, outbox_id LIMIT %(limit)s",
        {"channel": channel, "limit": limit, "now": moment(now_us)},
    )
    return [Delivery(*(*row[:4], time_us_of(row[4]), row[5], bytes(row[6]))) for row in rows]


def settle(connection: Connection[Any], settled: Sequence[Settled], now_us: int) -> None:
    """Note how tries ended."""
    connection.cursor().executemany(
        "UPDATE deliveries SET attempts = attempts + 1, error = %(error)s,"
        " due_time = coalesce(%(again)s, due_time), state = %(state)s,"
        " settled_time = CASE WHEN %(state)s <> 'waiting' THEN %(now)s::timestamptz END"
        " WHERE delivery_id = %(delivery_id)s AND state = 'waiting'",
        [
            {
                "delivery_id": s.delivery_id,
                "error": s.error,
                "again": None if s.again_us is None else moment(s.again_us),
                "state": "delivered" if s.error is None else "dead" if s.again_us is None else "waiting",
                "now": moment(now_us),
            }
            for s in settled
        ],
    )


def next_due_us(connection: Connection[Any], channel: str) -> int | None:
    """When the next try is due; None: nothing waits."""
    row = connection.execute(
        "SELECT min(due_time) FROM deliveries d WHERE channel = %s AND state = 'waiting' AND NOT EXISTS ("
        "  SELECT FROM deliveries e WHERE e.channel = d.channel AND e.device_id = d.device_id"
        "  AND e.state = 'waiting' AND e.outbox_id < d.outbox_id)",
        (channel,),
    ).fetchone()
    return None if row is None or row[0] is None else time_us_of(row[0])


def backlogs(connection: Connection[Any]) -> list[Backlog]:
    """What every channel has before it; the broker's is called ``mqtt``."""
    rows = connection.execute(BACKLOGS).fetchall()
    return [Backlog(*(*row[:3], None if row[3] is None else time_us_of(row[3]))) for row in rows]


BACKLOGS: Final = """
SELECT 'mqtt', count(*), 0, min(created_time) FROM outbox WHERE sent_time IS NULL
UNION ALL
SELECT c.channel, count(d.*) FILTER (WHERE d.state = 'waiting'), count(d.*) FILTER (WHERE d.state = 'dead'),
       min(d.created_time) FILTER (WHERE d.state = 'waiting')
FROM channels c LEFT JOIN deliveries d ON d.channel = c.channel AND d.state IN ('waiting', 'dead')
GROUP BY c.channel
"""


def forget(connection: Connection[Any], before: datetime) -> int:
    """Drop deliveries that were made or given up before; gives how many."""
    return connection.execute("DELETE FROM deliveries WHERE settled_time < %s", (before,)).rowcount
