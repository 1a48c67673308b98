"""The quarantine: what could not be taken in. It is bounded, looked at, and taken in again after a repair.

To replay a message is to ask the share that quarantined it: the share takes its bytes in like a message from
the broker, in a batch of its own order, and notes it after the commit. So what follows is decided once, is
stored with its batch, and can be decided again; pings that are stored already are copies and change nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telemetry.store.errors import StoreError
from telemetry.store.rows import KEPT_PAYLOAD_BYTES, bound, moment, write_rejects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection, Cursor

    from telemetry.columns import Batch, Reject
    from telemetry.store.link import Link
    from telemetry.store.partitions import Layout

__all__ = ["Asked", "Quarantine", "QuarantineGuard", "QuarantineRow", "Wanted"]

MEASURE_S: Final = 10.0  # between two looks at the size of the table; what is written meanwhile is added up
ROW_BYTES: Final = 300  # of a row besides its payload, index included
ASKED_BYTES: Final = 8 << 20  # of payload that one turn of a share takes in again
ASKED_ROWS: Final = 1_000
LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which quarantined messages; None: no matter.

    device   : id of the device that the topic names
    topic    : text that the topic holds
    from_us, to_us : from <= received time < to
    replayed : whether somebody has asked for a replay
    """

    ids: Sequence[int] | None = None
    reason: str | None = None
    device: str | None = None
    topic: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    replayed: bool | None = None


class QuarantineRow(NamedTuple):
    """A quarantined message. ``payload`` is whole unless ``payload_sha256``, of all of it, is there.

    refused_again : of the last replay: whether the message came back here; None: none was taken yet
    """

    quarantine_id: int
    received_us: int
    share: int
    batch: int
    topic: str
    reason: str
    detail: str
    payload_bytes: int
    payload: bytes
    payload_sha256: bytes | None
    asked_us: int | None
    asked_by: str | None
    taken_us: int | None
    refused_again: bool | None


class Asked(NamedTuple):
    """A message that its share is asked to take in again."""

    replay_id: int
    topic: str
    payload: bytes


def _us(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::int8"


_LIST: Final = f"""
SELECT q.quarantine_id, {_us("q.received_time")}, q.share, q.batch, q.topic, q.reason, q.detail,
       q.payload_bytes, q.payload, q.payload_sha256, {_us("r.asked_time")}, r.who, {_us("r.taken_time")},
       CASE WHEN r.taken_time IS NOT NULL THEN EXISTS (
           SELECT FROM quarantine a WHERE a.received_time = r.taken_time AND a.topic = q.topic
           AND a.quarantine_id > q.quarantine_id) END
FROM quarantine q
LEFT JOIN LATERAL (
    SELECT * FROM quarantine_replays r WHERE r.quarantine_id = q.quarantine_id
    ORDER BY r.replay_id DESC LIMIT 1
) r ON true
WHERE {{where}}
ORDER BY q.received_time DESC, q.quarantine_id DESC LIMIT %(limit)s
"""  # noqa: S608
_CONDITIONS: Final = {
    "ids": "q.quarantine_id = ANY(%(ids)s)",
    "reason": "q.reason = %(reason)s",
    "device": "(strpos(q.topic, '/' || %(device)s || '/') > 0"
    " OR q.topic LIKE 'owntracks/%%' AND replace(substr(q.topic, 11), '/', '-') = %(device)s)",
    "topic": "strpos(q.topic, %(topic)s) > 0",
    "from_us": "q.received_time >= %(from_us)s",
    "to_us": "q.received_time < %(to_us)s",
    "replayed": "(r.replay_id IS NOT NULL) = %(replayed)s",
}


class Quarantine:
    """What is quarantined, through a store's connection."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def find(self, wanted: Wanted, limit: int) -> list[QuarantineRow]:
        """The newest that are wanted."""
        values: dict[str, Any] = {
            name: value for name in _CONDITIONS if (value := getattr(wanted, name)) is not None
        }
        where = " AND ".join(["true", *(_CONDITIONS[name] for name in values)])
        values |= {name: bound(values[name]) for name in ("from_us", "to_us") if name in values}
        if "ids" in values:
            values["ids"] = [number for number in values["ids"] if 0 < number <= LARGEST_ID]
        with self._link.use("looking into the quarantine") as connection:
            rows = connection.execute(
                _LIST.format(where=where), values | {"limit": limit}, prepare=False, binary=True
            )
            return [QuarantineRow(*row) for row in rows]

    def ask(self, rows: Sequence[QuarantineRow], who: str) -> None:
        """Ask their shares to take these in again; those that wait already are asked for once.

        Raises StoreError when the beginning of a message is all that is left of it.
        """
        for row in rows:
            if row.payload_sha256 is not None:
                raise StoreError(
                    f"quarantined message {row.quarantine_id} had {row.payload_bytes} bytes, of which "
                    f"{len(row.payload)} were kept: it can't be replayed; let the device send it again"
                )
        columns = [(row.quarantine_id, moment(row.received_us), row.share, who) for row in rows]
        with self._link.use("asking for replays") as connection:
            connection.execute(
                "INSERT INTO quarantine_replays (quarantine_id, received_time, asked_time, share, who)"
                " SELECT id, received, clock_timestamp(), share, who"
                " FROM unnest(%s::int8[], %s::timestamptz[], %s::int2[], %s::text[])"
                " AS q (id, received, share, who)"
                " ON CONFLICT (quarantine_id) WHERE taken_time IS NULL DO NOTHING",
                [list(column) for column in zip(*columns, strict=True)] or [[], [], [], []],
            )

    def asked(self, share: int) -> list[Asked]:
        """What this share is asked to take in again, oldest first, as much as one turn should take."""
        with self._link.use("looking for replays that were asked for") as connection:
            rows = connection.execute(
                "SELECT r.replay_id, q.topic, q.payload FROM quarantine_replays r JOIN quarantine q"
                " ON q.quarantine_id = r.quarantine_id AND q.received_time = r.received_time"
                " WHERE r.share = %s AND r.taken_time IS NULL ORDER BY r.replay_id LIMIT %s",
                (share, ASKED_ROWS),
                binary=True,
            ).fetchall()
        taken: list[Asked] = []
        size = 0
        for row in map(Asked._make, rows):
            size += len(row.payload)
            if taken and size > ASKED_BYTES:
                break
            taken.append(row)
        return taken

    def taken(self, replay_ids: Sequence[int], received_us: int, batch: int) -> None:
        """Note that these were taken in, with this received time, and that the batch is committed."""
        with self._link.use("noting replays") as connection:
            connection.execute(
                "UPDATE quarantine_replays SET taken_time = %s, batch = %s WHERE replay_id = ANY(%s)",
                (moment(received_us), batch, list(replay_ids)),
            )


class QuarantineGuard:
    """Keeps the quarantine within its size, whatever is sent.

    Up to the bound every message is kept. Beyond it a batch keeps one message of each reason, cut short, and
    says how many there were; ``batches.rejects`` always has the full count. From half of the bound on, the
    oldest days go when the house is kept, so that there is room again.
    """

    def __init__(self, most_bytes: int | None) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._measured_s = -MEASURE_S

    def write(self, cursor: Cursor[Any], layout: Layout, batch: Batch, rejects: Sequence[Reject]) -> None:
        """Write a batch's rejects, all or one of each reason."""
        if self._most_bytes is not None and time.monotonic() >= self._measured_s + MEASURE_S:
            self._bytes = size_of(cursor.connection, layout)
            self._measured_s = time.monotonic()
        self._bytes += sum(ROW_BYTES + min(len(r.payload), KEPT_PAYLOAD_BYTES) for r in rejects)
        write_rejects(
            cursor, batch, rejects, brief=self._most_bytes is not None and self._bytes > self._most_bytes
        )


def size_of(connection: Connection[Any], layout: Layout) -> int:
    """What the quarantine takes on disk, indexes included, in bytes."""
    names = [name for name, _ in layout.parts(connection, "quarantine")]
    row = connection.execute(
        "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::int8"
        " FROM unnest(%s::text[]) AS q (name)",
        (names,),
    ).fetchone()
    return 0 if row is None else int(row[0])
