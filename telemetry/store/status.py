"""``device_status``: the newest of each device, so that a map need not search the pings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence import COLUMNS, NO_FIX, NO_TIME, Pings
from telemetry.columns import MARK_TAG_WRONG, MARK_TOPIC_MISMATCH
from telemetry.store.packing import PING_COLUMNS
from telemetry.store.rows import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from psycopg import Cursor

    from geofence import Devices
    from telemetry.columns import DeviceStatus
    from telemetry.store.packing import PingPacker

__all__ = ["StatusBoard", "write_statuses"]

ROWS_PER_S: Final = 20_000  # a row costs the database about 8 us, so this bounds it to a sixth of a core
UNTRUSTED: Final = (
    MARK_TAG_WRONG | MARK_TOPIC_MISMATCH
)  # somebody else may have sent it: it moves nobody on the map

_OF_PING: Final = (
    "fix_time",
    "received_time",
    "speed_cmps",
    "heading_cdeg",
    "status",
    "marks",
    "battery_pct",
)
_OF_POSITION: Final = ("position_time", "lat_e7", "lon_e7", "accuracy_mm")
_IS_NEWER: Final = "(d.fix_time IS NULL OR EXCLUDED.fix_time >= d.fix_time)"
_IS_NEWER_FIX: Final = (
    "(EXCLUDED.position_time IS NOT NULL"
    " AND (d.position_time IS NULL OR EXCLUDED.position_time >= d.position_time))"
)


def _moved(columns: tuple[str, ...], condition: str) -> str:
    return ", ".join(f"{c} = CASE WHEN {condition} THEN EXCLUDED.{c} ELSE d.{c} END" for c in columns)


_TEMPORARY: Final = "CREATE TEMPORARY TABLE IF NOT EXISTS newest_pings (LIKE pings) ON COMMIT DELETE ROWS"
# The ping's columns and the position's move each by their own time: the newest ping need not have a fix.
_MERGE: Final = f"""
INSERT INTO device_status AS d (device_id, {", ".join(_OF_PING)}, {", ".join(_OF_POSITION)})
SELECT p.device_id, {", ".join(f"p.{name}" for name in _OF_PING)},
       f.fix_time, f.lat_e7, f.lon_e7, f.accuracy_mm
FROM (SELECT DISTINCT ON (device_id) * FROM newest_pings ORDER BY device_id, fix_time DESC) p
LEFT JOIN (SELECT DISTINCT ON (device_id) * FROM newest_pings WHERE lat_e7 IS NOT NULL
           ORDER BY device_id, fix_time DESC) f ON f.device_id = p.device_id
ORDER BY p.device_id
ON CONFLICT (device_id) DO UPDATE SET
{_moved(_OF_PING, _IS_NEWER)},
{_moved(_OF_POSITION, _IS_NEWER_FIX)}
WHERE {_IS_NEWER} OR {_IS_NEWER_FIX}
"""  # noqa: S608


class StatusBoard:
    """What of the newest pings is not in ``device_status`` yet.

    A commit writes it as long as a budget of rows per second allows; else it waits for a later commit or for
    the snapshot, which writes all. At a usual rate every commit writes its own.
    """

    def __init__(self) -> None:
        self._newest = (_Newest(), _Newest())  # of the pings, and of those with a fix
        self._budget = float(ROWS_PER_S)
        self._filled_us = 0
        self._being_written = False

    def forget(self) -> None:
        """Begin again: the share was taken anew, and its replay tells what is new."""
        self._newest = (_Newest(), _Newest())

    def note(
        self,
        packer: PingPacker,
        pings: Pings,
        marks: NDArray[np.uint16],
        order: NDArray[np.int64] | None = None,
    ) -> None:
        """Remember what is newest in a batch. To note a batch twice changes nothing.

        order : the pings by device and time, where it is known already
        """
        order = packer.order(pings) if order is None else order
        order = order[(marks[order] & UNTRUSTED) == 0]
        has_fix = (pings.lat_e7[order] != NO_FIX) & (pings.lon_e7[order] != NO_FIX)
        for newest, some in zip(self._newest, (order, order[has_fix]), strict=True):
            device = pings.device[some]
            newest.note(pings, marks, some[np.append(device[1:] != device[:-1], True)] if len(some) else some)

    def write(self, cursor: Cursor[Any], packer: PingPacker, now_us: int, *, all_of_it: bool = False) -> None:
        """Bring the table up to date, if the budget allows; ``written`` follows once that is committed."""
        earned = max(now_us - self._filled_us, 0) / 1e6 * ROWS_PER_S
        self._budget = min(self._budget + earned, ROWS_PER_S)
        self._filled_us = now_us
        waiting = [part for newest in self._newest if (part := newest.waiting()) is not None]
        self._being_written = bool(waiting) and (all_of_it or self._budget > 0)
        if not self._being_written:
            return
        self._budget -= len(waiting[0][0])
        cursor.execute(_TEMPORARY)
        for pings, marks in waiting:
            data = packer.pack(pings, marks, np.zeros(len(pings), np.bool_), 0, 0)
            with cursor.copy(f"COPY newest_pings ({PING_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(data)
        cursor.execute(_MERGE)

    def written(self) -> None:
        """What ``write`` sent has been committed."""
        if self._being_written:
            for newest in self._newest:
                newest.clear()


class _Newest:
    """One ping of each device, the newest noted so far, as columns over the device slots."""

    def __init__(self) -> None:
        self._pings: Pings | None = None
        self._marks = np.zeros(0, np.uint16)
        self._waits = np.zeros(0, np.bool_)

    def note(self, pings: Pings, marks: NDArray[np.uint16], index: NDArray[np.int64]) -> None:
        """Keep those of these pings that are newer than what is kept. index: at most one of each device."""
        kept = self._room_for(pings.devices)
        slot = pings.device[index]
        newer = pings.fix_time_us[index] >= kept.fix_time_us[slot]
        index, slot = index[newer], slot[newer]
        for name, _, _ in COLUMNS:
            getattr(kept, name)[slot] = getattr(pings, name)[index]
        self._marks[slot] = marks[index]
        self._waits[slot] = True

    def _room_for(self, devices: Devices) -> Pings:
        """The columns, long enough for every device; a device without a ping has the time NO_TIME."""
        kept, n = self._pings, len(devices)
        if kept is None or kept.devices is not devices:
            kept = Pings.empty(devices)
            self._marks, self._waits = np.zeros(0, np.uint16), np.zeros(0, np.bool_)
        if len(kept) < n:
            more = max(n, 2 * len(kept)) - len(kept)
            none = Pings.of(devices, device=np.zeros(more), fix_time_us=np.full(more, NO_TIME))
            kept = Pings.concat([kept, none])
            self._marks = np.concatenate([self._marks, np.zeros(more, np.uint16)])
            self._waits = np.concatenate([self._waits, np.zeros(more, np.bool_)])
        self._pings = kept
        return kept

    def waiting(self) -> tuple[Pings, NDArray[np.uint16]] | None:
        """What was noted since ``clear``, with its marks; None: nothing."""
        slots = np.flatnonzero(self._waits)
        if self._pings is None or not len(slots):
            return None
        return self._pings.take(slots), self._marks[slots]

    def clear(self) -> None:
        """What is kept has been written."""
        self._waits[:] = False


def write_statuses(cursor: Cursor[Any], statuses: Sequence[DeviceStatus]) -> None:
    """Note who said online or offline; of several words of one device the last counts."""
    last = {status.device_id: status for status in statuses}
    cursor.execute(
        "INSERT INTO device_status AS d (device_id, online, online_time)"
        " SELECT * FROM unnest(%s::text[], %s::boolean[], %s::timestamptz[])"
        " ON CONFLICT (device_id) DO UPDATE SET online = EXCLUDED.online, online_time = EXCLUDED.online_time"
        " WHERE d.online_time IS NULL OR d.online_time <= EXCLUDED.online_time",
        (
            list(last),
            [status.online for status in last.values()],
            [moment(status.received_time_us) for status in last.values()],
        ),
    )
