"""Questions about stored pings that the engine's side asks: is it there already, and what went before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence import NO_FIX, NO_SEQ, Devices
from telemetry.store.packing import READ_COLUMNS, StoredPings, unpack
from telemetry.store.rows import bound, moment

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

    from geofence import Pings

__all__ = ["between", "between_each", "contains"]

# LATERAL with LIMIT keeps the planner from turning a look-up by the index into a join over whole days.
_CONTAINS: Final = """
SELECT q.item - 1
FROM unnest(%(device_id)s::text[], %(fix_time)s::timestamptz[], %(boot)s::int4[], %(seq)s::int8[],
            %(lat_e7)s::int4[], %(lon_e7)s::int4[]) WITH ORDINALITY
     AS q (device_id, fix_time, boot, seq, lat_e7, lon_e7, item)
CROSS JOIN LATERAL (
    SELECT FROM pings p
    WHERE p.device_id = q.device_id COLLATE "C" AND p.fix_time = q.fix_time
      AND p.fix_time BETWEEN %(first)s AND %(last)s
      AND CASE WHEN q.seq IS NULL
          THEN p.lat_e7 IS NOT DISTINCT FROM q.lat_e7 AND p.lon_e7 IS NOT DISTINCT FROM q.lon_e7
          ELSE p.seq = q.seq AND p.boot IS NOT DISTINCT FROM q.boot END
    LIMIT 1
) found
"""
LOOK_UP_PINGS: Final = 10_000  # at once: bounds the parameters of one query


def contains(connection: Connection[Any], pings: Pings) -> NDArray[np.bool_]:
    """Which of these pings are stored: by boot, seq and fix time; without a seq by fix time and position."""
    found = np.zeros(len(pings), np.bool_)
    # by day, so that the planner looks into few days; within a day by device, so that look-ups fall together
    order = np.lexsort((pings.device, pings.fix_time_us // 86_400_000_000))
    for begin in range(0, len(pings), LOOK_UP_PINGS):
        some = order[begin : begin + LOOK_UP_PINGS]
        part = pings.take(some)
        rows = connection.execute(
            _CONTAINS,
            {
                "device_id": [part.devices.ids[slot] for slot in part.device.tolist()],
                "fix_time": [moment(time_us) for time_us in part.fix_time_us.tolist()],
                "boot": _nullable(part.boot, NO_SEQ),
                "seq": _nullable(part.seq, NO_SEQ),
                "lat_e7": _nullable(part.lat_e7, NO_FIX),
                "lon_e7": _nullable(part.lon_e7, NO_FIX),
                "first": moment(part.fix_time_us.min()),
                "last": moment(part.fix_time_us.max()),
            },
            prepare=False,  # the plan depends on which days are asked for
        ).fetchall()
        found[some[[item for (item,) in rows]]] = True
    return found


def _nullable(column: NDArray[Any], unknown: int) -> list[int | None]:
    return [None if value == unknown else value for value in column.tolist()]


def between(
    connection: Connection[Any], device_id: str, from_us: int, to_us: int, devices: Devices
) -> StoredPings:
    """A device's pings with from <= fix time < to, in the order of judging: fix time, boot, seq."""
    with (
        connection.cursor() as cursor,
        cursor.copy(
            f"COPY (SELECT {READ_COLUMNS} FROM pings"  # noqa: S608
            " WHERE device_id = %s AND fix_time >= %s AND fix_time < %s) TO STDOUT (FORMAT BINARY)",
            (device_id, bound(from_us), bound(to_us)),
        ) as copy,
    ):
        stored = unpack(copy, devices)
    pings = stored.pings
    return stored.take(np.lexsort((pings.seq, pings.boot, pings.fix_time_us)))


# The first two conditions on the time say at planning which days there are to look into, the other two which
# of them for each device.
_BETWEEN_EACH: Final = f"""
COPY (SELECT p.* FROM unnest(%(ids)s::text[], %(from)s::timestamptz[], %(to)s::timestamptz[])
          AS q (device_id, from_time, to_time)
      CROSS JOIN LATERAL (
          SELECT {READ_COLUMNS} FROM pings
          WHERE device_id = q.device_id COLLATE "C"
            AND fix_time >= %(first)s::timestamptz AND fix_time < %(last)s::timestamptz
            AND fix_time >= q.from_time AND fix_time < q.to_time
          OFFSET 0
      ) p) TO STDOUT (FORMAT BINARY)
"""  # noqa: S608


def between_each(
    connection: Connection[Any],
    devices: Devices,
    slots: NDArray[np.int32],
    from_us: NDArray[np.int64],
    to_us: NDArray[np.int64],
) -> StoredPings:
    """The pings of several devices, each with from <= fix time < to, by device, fix time, boot and seq."""
    values = {
        "ids": [devices.ids[slot] for slot in slots.tolist()],
        "from": [bound(time_us) for time_us in from_us.tolist()],
        "to": [bound(time_us) for time_us in to_us.tolist()],
        "first": bound(int(from_us.min())),
        "last": bound(int(to_us.max())),
    }
    with connection.cursor() as cursor, cursor.copy(_BETWEEN_EACH, values) as copy:
        stored = unpack(copy, devices)
    pings = stored.pings
    return stored.take(np.lexsort((pings.seq, pings.boot, pings.fix_time_us, pings.device)))
