"""Shares: who holds one, what its state was, and what came since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from psycopg import errors as pg

from telemetry.columns import CheckIn, Tick
from telemetry.store.connect import holder_name
from telemetry.store.errors import StaleEpoch, StoreError, StoreUnavailable
from telemetry.store.packing import READ_COLUMNS, StoredPings, unpack
from telemetry.store.rows import time_us_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from numpy.typing import NDArray
    from psycopg import Connection, Cursor

    from geofence import Devices, Pings
    from telemetry.store.link import Link

__all__ = ["Lease", "Replayed", "advance", "replayed", "take", "write_snapshot"]

KEPT_SNAPSHOTS: Final = 2  # the one before the newest is kept, for looking into what went wrong
REPLAY_PINGS: Final = 200_000  # read at once: 60 MB of memory


@dataclass(frozen=True, slots=True)
class Lease:
    """A share that was taken.

    epoch          : ours; every commit is checked against it
    last_batch     : the newest that was committed; 0: none
    snapshot       : the newest saved state; None: there is none
    snapshot_batch : the batch after which it was saved; 0: none
    """

    epoch: int
    last_batch: int
    snapshot: bytes | None
    snapshot_batch: int


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """The inputs of one committed batch. The order of its pings is not that in which they came.

    marks  : uint16 (n,)
    judged : bool (n,)
    tick   : None: it had none
    """

    number: int
    rules_version: int
    pings: Pings
    marks: NDArray[np.uint16]
    judged: NDArray[np.bool_]
    check_ins: list[CheckIn]
    tick: Tick | None


def take(link: Link, share: int) -> Lease:
    """Raise the share's epoch and end whoever still serves it."""
    for _ in range(3):
        link.take(share)
        with link.use(f"taking share {share}") as connection:
            try:
                row = _raise_epoch(connection, share)
            except pg.LockNotAvailable:
                continue  # a session with another name, or one that connected just now
            link.hold(share, row[0])
            saved = connection.execute(
                "SELECT batch, state FROM snapshots WHERE share = %s ORDER BY batch DESC LIMIT 1",
                (share,),
                binary=True,
            ).fetchone()
            batch, state = saved or (0, None)
            return Lease(epoch=row[0], last_batch=row[1], snapshot=state, snapshot_batch=batch)
    raise StoreUnavailable(
        f"taking share {share}: another session holds its row in table shares and did not end; "
        "find it in pg_stat_activity (wait_event_type Lock names who waits), and end it"
    )


def _raise_epoch(connection: Connection[Any], share: int) -> tuple[int, int]:
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '1s'")
        row = connection.execute(
            "INSERT INTO shares AS s (share, epoch, last_batch, holder, backend_pid, taken_time)"
            " VALUES (%s, 1, 0, %s, pg_backend_pid(), clock_timestamp())"
            " ON CONFLICT (share) DO UPDATE SET epoch = s.epoch + 1, holder = EXCLUDED.holder,"
            " backend_pid = EXCLUDED.backend_pid, taken_time = EXCLUDED.taken_time"
            " RETURNING epoch, last_batch",
            (share, holder_name()),
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def advance(cursor: Cursor[Any], share: int, epoch: int, number: int) -> bool:
    """Claim the batch number in this transaction. False: this very batch was committed before.

    Raises StaleEpoch, and StoreError when a batch is missing in between.
    """
    cursor.execute(
        "UPDATE shares SET last_batch = %s, backend_pid = pg_backend_pid()"
        " WHERE share = %s AND epoch = %s AND last_batch = %s",
        (number, share, epoch, number - 1),
    )
    if cursor.rowcount == 1:
        return True
    row = cursor.execute("SELECT epoch, last_batch FROM shares WHERE share = %s", (share,)).fetchone()
    if row is None or row[0] != epoch:
        raise StaleEpoch(share, epoch, None if row is None else row[0])
    if row[1] == number:
        return False
    raise StoreError(
        f"share {share}: batch {number} can't follow batch {row[1]}; numbers go up by one: "
        "restore the share's state"
    )


def write_snapshot(cursor: Cursor[Any], share: int, epoch: int, batch: int, state: bytes) -> None:
    """Save a state, and drop those before the one before it. Raises StaleEpoch."""
    row = cursor.execute("SELECT epoch FROM shares WHERE share = %s FOR SHARE", (share,)).fetchone()
    if row is None or row[0] != epoch:
        raise StaleEpoch(share, epoch, None if row is None else row[0])
    cursor.execute(
        "INSERT INTO snapshots (share, batch, epoch, saved_time, state)"
        " VALUES (%s, %s, %s, clock_timestamp(), %b)"
        " ON CONFLICT (share, batch) DO UPDATE SET epoch = EXCLUDED.epoch, saved_time = EXCLUDED.saved_time,"
        " state = EXCLUDED.state",
        (share, batch, epoch, state),
    )
    cursor.execute(
        "DELETE FROM snapshots WHERE share = %(share)s AND batch < (SELECT min(batch) FROM"
        " (SELECT batch FROM snapshots WHERE share = %(share)s ORDER BY batch DESC LIMIT %(kept)s) newest)",
        {"share": share, "kept": KEPT_SNAPSHOTS},
    )


class _BatchRow(NamedTuple):
    """A row of ``batches``: what a replay needs."""

    number: int
    rules_version: int
    tick_time: datetime | None
    listening_since: datetime | None
    first_fix_time: datetime | None
    last_fix_time: datetime | None
    first_check_in: datetime | None
    pings: int
    check_ins: int


def replayed(link: Link, share: int, after_batch: int, devices: Devices) -> Iterator[Replayed]:
    """The inputs of every batch after ``after_batch``, in order. Between two of them the link is free."""
    with link.use(f"reading the batches of share {share}") as connection:
        rows = connection.execute(
            f"SELECT {', '.join(_BatchRow._fields)} FROM batches"  # noqa: S608
            " WHERE share = %s AND number > %s ORDER BY number",
            (share, after_batch),
            binary=True,
        ).fetchall()
    for group in _groups(map(_BatchRow._make, rows)):
        first, last = group[0].number, group[-1].number
        with link.use(f"reading batches {first} to {last} of share {share}") as connection:
            pings = _pings_of(connection, share, group, devices)
            check_ins = _check_ins_of(connection, share, group)
        yield from _split(share, group, pings, check_ins)


def _groups(rows: Iterable[_BatchRow]) -> Iterator[list[_BatchRow]]:
    group: list[_BatchRow] = []
    pings = 0
    for row in rows:
        group.append(row)
        pings += row.pings
        if pings >= REPLAY_PINGS:
            yield group
            group, pings = [], 0
    if group:
        yield group


def _pings_of(
    connection: Connection[Any], share: int, group: list[_BatchRow], devices: Devices
) -> StoredPings:
    """The pings of a group of batches, by batch. The fix times say which days to look into."""
    first = min((row.first_fix_time for row in group if row.first_fix_time is not None), default=None)
    last = max((row.last_fix_time for row in group if row.last_fix_time is not None), default=None)
    if first is None:
        return StoredPings.empty(devices)
    with (
        connection.cursor() as cursor,
        cursor.copy(
            f"COPY (SELECT {READ_COLUMNS} FROM pings WHERE share = %s AND batch BETWEEN %s AND %s"  # noqa: S608
            " AND fix_time BETWEEN %s AND %s) TO STDOUT (FORMAT BINARY)",
            (share, group[0].number, group[-1].number, first, last),
        ) as copy,
    ):
        stored = unpack(copy, devices)
    return stored.take(np.argsort(stored.batch, kind="stable"))


def _check_ins_of(
    connection: Connection[Any], share: int, group: list[_BatchRow]
) -> dict[int, list[CheckIn]]:
    """The check-ins of a group of batches, by batch."""
    first = min((row.first_check_in for row in group if row.first_check_in is not None), default=None)
    found: dict[int, list[CheckIn]] = {}
    if first is None:
        return found
    rows = connection.execute(
        "SELECT batch, device_id, time, received_time, outcome, method FROM check_ins"
        " WHERE share = %s AND batch BETWEEN %s AND %s AND received_time >= %s ORDER BY batch, item",
        (share, group[0].number, group[-1].number, first),
        binary=True,
    )
    for batch, device_id, time, received_time, outcome, method in rows:
        found.setdefault(batch, []).append(
            CheckIn(device_id, time_us_of(time), time_us_of(received_time), outcome, method)
        )
    return found


def _split(
    share: int, group: list[_BatchRow], stored: StoredPings, check_ins: dict[int, list[CheckIn]]
) -> Iterator[Replayed]:
    for row in group:
        begin, end = np.searchsorted(stored.batch, [row.number, row.number + 1])
        of_batch = check_ins.get(row.number, [])
        if (end - begin, len(of_batch)) != (row.pings, row.check_ins):
            raise StoreError(
                f"share {share}, batch {row.number}: {row.pings} pings and {row.check_ins} check-ins were "
                f"committed, {end - begin} and {len(of_batch)} are there now: somebody removed rows; "
                "restore them from a backup"
            )
        tick = None
        if row.tick_time is not None and row.listening_since is not None:
            tick = Tick(time_us_of(row.tick_time), time_us_of(row.listening_since))
        yield Replayed(
            number=row.number,
            rules_version=row.rules_version,
            pings=stored.pings.take(slice(begin, end)),
            marks=stored.marks[begin:end],
            judged=stored.judged[begin:end],
            check_ins=of_batch,
            tick=tick,
        )
