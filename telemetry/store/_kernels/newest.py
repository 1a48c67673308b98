"""The newest ping and the newest position of each device, kept over device slots and written as COPY rows."""

from __future__ import annotations

from typing import Final

from numba import njit

from geofence.units import NO_ACCURACY, NO_FIX, NO_TIME, UNKNOWN_U8, UNKNOWN_U16
from telemetry.store._kernels.copy_rows import POSTGRES_EPOCH_US, _put, _put_null

__all__ = ["NOTED", "NUMBERS", "STATUS_BYTES", "TIMES", "note_newest", "pack_status"]

TIMES: Final = 3  # fix and received time of the newest ping, time of the newest position
NUMBERS: Final = 8  # lat, lon, accuracy of the newest position; speed … battery of the newest ping
NOTED: Final = (  # columns of pings, in the order in which note_newest takes them
    "device",
    "fix_time_us",
    "received_time_us",
    "lat_e7",
    "lon_e7",
    "accuracy_mm",
    "speed_cmps",
    "heading_cdeg",
    "status",
    "battery_pct",
)
STATUS_FIELDS: Final = 1 + TIMES + NUMBERS
STATUS_BYTES: Final = 2 + STATUS_FIELDS * 4 + TIMES * 8 + (NUMBERS - 1) * 4 + 2  # without the device id


@njit(nogil=True, cache=True)
def note_newest(
    device,
    fix_time_us,
    received_time_us,
    lat_e7,
    lon_e7,
    accuracy_mm,
    speed_cmps,
    heading_cdeg,
    status,
    battery_pct,
    marks,
    untrusted,
    times,
    numbers,
    waits,
):
    """Keep of each device the newest ping, and apart from it the newest position.

    device           : int32 (n,)
    fix_time_us, received_time_us : int64 (n,)
    lat_e7, lon_e7, accuracy_mm   : int32 (n,)
    speed_cmps, heading_cdeg, status, marks : uint16 (n,)
    battery_pct      : uint8 (n,)
    untrusted        : int64   marks with which a ping moves nobody
    times            : int64 (d, TIMES)    NO_TIME: none yet; written
    numbers          : int32 (d, NUMBERS)  written
    waits            : bool (d,)           set for every device whose row changed

    Of pings of one time the last counts; to note pings twice changes nothing.
    """
    for i in range(len(device)):
        if marks[i] & untrusted:
            continue
        d = device[i]
        if fix_time_us[i] >= times[d, 0]:
            times[d, 0] = fix_time_us[i]
            times[d, 1] = received_time_us[i]
            numbers[d, 3] = speed_cmps[i]
            numbers[d, 4] = heading_cdeg[i]
            numbers[d, 5] = status[i]
            numbers[d, 6] = marks[i]
            numbers[d, 7] = battery_pct[i]
            waits[d] = True
        if lat_e7[i] != NO_FIX and lon_e7[i] != NO_FIX and fix_time_us[i] >= times[d, 2]:
            times[d, 2] = fix_time_us[i]
            numbers[d, 0] = lat_e7[i]
            numbers[d, 1] = lon_e7[i]
            numbers[d, 2] = accuracy_mm[i]
            waits[d] = True


@njit(nogil=True, cache=True)
def pack_status(slots, id_bytes, id_start, times, numbers, out):
    """Write rows of ``telemetry.store.status.STATUS_COLUMNS`` as COPY rows.

    slots          : int64 (m,)    which devices, in which order
    id_bytes       : uint8 (b,)    the device ids, one after the other, UTF-8
    id_start       : int64 (d+1,)  where the id of each device slot begins
    times, numbers : as ``note_newest`` keeps them
    out            : uint8, at least m * STATUS_BYTES and the ids; written

    Gives the bytes written.
    """
    at = 0
    for d in slots:
        out[at] = 0
        out[at + 1] = STATUS_FIELDS
        at += 2
        begin = id_start[d]
        length = id_start[d + 1] - begin
        out[at] = 0
        out[at + 1] = 0
        out[at + 2] = (length >> 8) & 0xFF
        out[at + 3] = length & 0xFF
        at += 4
        for k in range(length):
            out[at + k] = id_bytes[begin + k]
        at += length
        for k in range(TIMES):
            known = times[d, k] != NO_TIME
            at = _put(out, at, times[d, k] - POSTGRES_EPOCH_US, 8) if known else _put_null(out, at)
        has_position = times[d, 2] != NO_TIME
        for k in range(3):
            known = has_position and (k < 2 or numbers[d, 2] != NO_ACCURACY)
            at = _put(out, at, numbers[d, k], 4) if known else _put_null(out, at)
        for k in range(3, 5):
            known = numbers[d, k] != UNKNOWN_U16
            at = _put(out, at, numbers[d, k], 4) if known else _put_null(out, at)
        for k in range(5, 7):
            at = _put(out, at, numbers[d, k], 4)
        at = _put(out, at, numbers[d, 7], 2) if numbers[d, 7] != UNKNOWN_U8 else _put_null(out, at)
    return at
