"""Messages to operators that were committed and wait for the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from telemetry.store.rows import time_us_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

__all__ = ["OutboxRow", "mark_sent", "pending"]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that was not confirmed by the broker yet.

    clears : the topic whose retained message ends with this one; None: none does
    """

    id: int
    alert_id: int
    device_id: str
    topic: str
    payload: bytes
    retain: bool
    clears: str | None
    created_us: int


def pending(connection: Connection[Any], limit: int, after_id: int) -> list[OutboxRow]:
    """The oldest unsent messages with a greater id, in order."""
    rows = connection.execute(
        "SELECT id, alert_id, device_id, topic, payload, retain, clears, created_time FROM outbox"
        " WHERE sent_time IS NULL AND id > %s ORDER BY id LIMIT %s",
        (after_id, limit),
        binary=True,
    )
    return [OutboxRow(*(*row[:7], time_us_of(row[7]))) for row in rows]


def mark_sent(connection: Connection[Any], ids: Sequence[int]) -> None:
    """Note that the broker has confirmed these."""
    connection.execute(
        "UPDATE outbox SET sent_time = clock_timestamp() WHERE id = ANY(%s) AND sent_time IS NULL",
        (list(ids),),
    )
