"""``device_status``: the newest of each device, so that a map need not search the pings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence import NO_TIME
from telemetry.columns import MARK_TAG_WRONG, MARK_TOPIC_MISMATCH
from telemetry.store._kernels import newest as kernel
from telemetry.store.rows import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from psycopg import Cursor

    from geofence import Devices, Pings
    from telemetry.columns import DeviceStatus
    from telemetry.store.packing import PingPacker

__all__ = ["STATUS_COLUMNS", "StatusBoard", "write_statuses"]

ROWS_PER_S: Final = 20_000  # a row costs the database 5 to 8 us, so this bounds it to a sixth of a core
UNTRUSTED: Final = (
    MARK_TAG_WRONG | MARK_TOPIC_MISMATCH
)  # somebody else may have sent it: it moves nobody on the map

_OF_POSITION: Final = ("position_time", "lat_e7", "lon_e7", "accuracy_mm")
_OF_PING: Final = (
    "fix_time",
    "received_time",
    "speed_cmps",
    "heading_cdeg",
    "status",
    "marks",
    "battery_pct",
)
STATUS_COLUMNS: Final = (  # in the order in which pack_status writes them
    "device_id, fix_time, received_time, position_time, lat_e7, lon_e7, accuracy_mm, speed_cmps, "
    "heading_cdeg, status, marks, battery_pct"
)
_IS_NEWER: Final = "(d.fix_time IS NULL OR EXCLUDED.fix_time >= d.fix_time)"
_IS_NEWER_FIX: Final = (
    "(EXCLUDED.position_time IS NOT NULL"
    " AND (d.position_time IS NULL OR EXCLUDED.position_time >= d.position_time))"
)


def _moved(columns: tuple[str, ...], condition: str) -> str:
    return ", ".join(f"{c} = CASE WHEN {condition} THEN EXCLUDED.{c} ELSE d.{c} END" for c in columns)


_TEMPORARY: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS newest_status (LIKE device_status) ON COMMIT DELETE ROWS"
)
# The ping's columns and the position's move each by their own time: the newest ping need not have a fix.
_MERGE: Final = f"""
INSERT INTO device_status AS d ({STATUS_COLUMNS})
SELECT {STATUS_COLUMNS} FROM newest_status
ON CONFLICT (device_id) DO UPDATE SET
{_moved(_OF_PING, _IS_NEWER)},
{_moved(_OF_POSITION, _IS_NEWER_FIX)}
WHERE {_IS_NEWER} OR {_IS_NEWER_FIX}
"""  # noqa: S608


class StatusBoard:
    """What of the newest pings is not in ``device_status`` yet.

    A commit writes it as long as a budget of rows per second allows; else it waits for a later commit or for
    the snapshot, which writes all. At a usual rate every commit writes its own. 57 bytes for each device.
    """

    def __init__(self) -> None:
        self._budget = float(ROWS_PER_S)
        self._filled_us = 0
        self._being_written = False
        self.forget()

    def forget(self) -> None:
        """Begin again: the share was taken anew, and its replay tells what is new."""
        self._devices: Devices | None = None
        self._allocate(0)

    def note(self, pings: Pings, marks: NDArray[np.uint16]) -> None:
        """Remember what is newest in a batch. To note a batch twice changes nothing."""
        if pings.devices is not self._devices:
            self._devices = pings.devices
            self._allocate(0)
        if len(pings.devices) > len(self._waits):
            self._allocate(max(len(pings.devices), 2 * len(self._waits)))
        columns = [getattr(pings, name) for name in kernel.NOTED]
        arguments = (*columns, marks, UNTRUSTED, self._times, self._numbers, self._waits)
        kernel.note_newest(*arguments)

    def write(self, cursor: Cursor[Any], packer: PingPacker, now_us: int, *, all_of_it: bool = False) -> None:
        """Bring the table up to date, if the budget allows; ``written`` follows once that is committed."""
        earned = max(now_us - self._filled_us, 0) / 1e6 * ROWS_PER_S
        self._budget = min(self._budget + earned, ROWS_PER_S)
        self._filled_us = now_us
        slots = np.flatnonzero(self._waits)
        self._being_written = len(slots) > 0 and (all_of_it or self._budget > 0)
        if not self._being_written:
            return
        assert self._devices is not None
        self._budget -= len(slots)
        cursor.execute(_TEMPORARY)
        with cursor.copy(f"COPY newest_status ({STATUS_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(packer.pack_status(self._devices, slots, self._times, self._numbers))
        cursor.execute(_MERGE)

    def written(self) -> None:
        """What ``write`` sent has been committed."""
        if self._being_written:
            self._waits[:] = False

    def _allocate(self, n: int) -> None:
        """Room for n devices; what is kept stays, unless n is 0."""
        kept: tuple[NDArray[Any], ...] = (self._times, self._numbers, self._waits) if n else ()
        self._times: NDArray[np.int64] = np.full((n, kernel.TIMES), NO_TIME, np.int64)
        self._numbers: NDArray[np.int32] = np.zeros((n, kernel.NUMBERS), np.int32)
        self._waits: NDArray[np.bool_] = np.zeros(n, np.bool_)
        fresh: tuple[NDArray[Any], ...] = (self._times, self._numbers, self._waits)
        for was, now in zip(kept, fresh, strict=False):
            now[: len(was)] = was


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
