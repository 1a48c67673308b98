"""Binary v1: headers checked and records unpacked, many messages at a time.

Numba checks no bounds. ``check`` proves that a message is exactly as long as its header says; ``unpack`` is
given only messages that passed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence.units import HALF_TURN_E7, NO_FIX, QUARTER_TURN_E7, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16

__all__ = [
    "BAD_BATTERY",
    "BAD_COUNT",
    "BAD_FLAGS",
    "BAD_HALF_FIX",
    "BAD_HEADING",
    "BAD_KIND",
    "BAD_LATITUDE",
    "BAD_LONGITUDE",
    "BAD_TIME",
    "BAD_VERSION",
    "FINE",
    "HEADER_BYTES",
    "MAX_RECORDS",
    "MAX_TIME_MS",
    "RECORD_BYTES",
    "TAG_BYTES",
    "TOO_LONG",
    "TOO_SHORT",
    "check",
    "unpack",
    "warm",
]

HEADER_BYTES = 8
RECORD_BYTES = 32
TAG_BYTES = 16
MAX_RECORDS = 1024
MAX_TIME_MS = 253_402_300_799_999  # the year 9999; in microseconds it is far below 2**63

# What is wrong with a message, or with a record.
FINE = 0
TOO_SHORT = 1
TOO_LONG = 2
BAD_VERSION = 3
BAD_FLAGS = 4
BAD_KIND = 5
BAD_COUNT = 6
BAD_TIME = 7
BAD_LATITUDE = 8
BAD_LONGITUDE = 9
BAD_HALF_FIX = 10
BAD_HEADING = 11
BAD_BATTERY = 12

_STATUS_BITS = 0x3FF  # the others are reserved
_FULL_TURN_CDEG = 36_000


@njit(cache=True, nogil=True, inline="always")
def _u16(buffer, at):
    return np.int64(buffer[at]) | np.int64(buffer[at + 1]) << 8


@njit(cache=True, nogil=True, inline="always")
def _u32(buffer, at):
    return _u16(buffer, at) | _u16(buffer, at + 2) << 16


@njit(cache=True, nogil=True)
def check(buffer, start, stop, problem, count):
    """Check headers and lengths.

    buffer      : uint8 (b,)   payloads
    start, stop : int64 (m,)   bounds of each; at least one byte, which is 0xA7
    problem     : uint8 (m,)   written: FINE or what is wrong
    count       : int64 (m,)   written: records; 0 where something is wrong
    """
    for m in range(len(start)):
        at, length = start[m], stop[m] - start[m]
        count[m] = 0
        if length < HEADER_BYTES:
            problem[m] = TOO_SHORT
            continue
        records = _u16(buffer, at + 4)
        wanted = HEADER_BYTES + RECORD_BYTES * records + TAG_BYTES * (np.int64(buffer[at + 2]) & 1)
        if buffer[at + 1] != 1:
            problem[m] = BAD_VERSION
        elif buffer[at + 2] > 1:
            problem[m] = BAD_FLAGS
        elif buffer[at + 3] > 1:
            problem[m] = BAD_KIND
        elif records == 0 or records > MAX_RECORDS:
            problem[m] = BAD_COUNT
        elif length < wanted:
            problem[m] = TOO_SHORT
        elif length > wanted:
            problem[m] = TOO_LONG
        else:
            problem[m] = FINE
            count[m] = records


@njit(cache=True, nogil=True)
def unpack(
    buffer,
    start,
    count,
    boot,
    seq,
    time_us,
    lat_e7,
    lon_e7,
    accuracy_mm,
    speed_cmps,
    heading_cdeg,
    altitude_m,
    status,
    battery_pct,
    satellites,
    problem,
):
    """Unpack the records of messages that ``check`` found fine (count 0: none of it).

    buffer       : uint8 (b,)
    start, count : int64 (m,)
    boot … satellites : (sum of count,) the columns of Pings, with their dtypes; written
    problem      : uint8 (sum of count,)  written: FINE or what is wrong with the record
    """
    n = 0
    for m in range(len(start)):
        message_boot = _u16(buffer, start[m] + 6) if count[m] else 0
        for r in range(count[m]):
            at = start[m] + HEADER_BYTES + RECORD_BYTES * r
            boot[n] = message_boot
            seq[n] = _u32(buffer, at)
            time_ms = _u32(buffer, at + 4) | _u32(buffer, at + 8) << 32
            lat = np.int64(np.int32(_u32(buffer, at + 12)))
            lon = np.int64(np.int32(_u32(buffer, at + 16)))
            accuracy_dm = _u16(buffer, at + 20)
            heading = _u16(buffer, at + 24)
            battery = buffer[at + 30]
            bad = FINE
            if time_ms < 0 or time_ms > MAX_TIME_MS:
                bad, time_ms = BAD_TIME, 0
            elif (lat == NO_FIX) != (lon == NO_FIX):
                bad = BAD_HALF_FIX
            elif lat != NO_FIX and (lat < -QUARTER_TURN_E7 or lat > QUARTER_TURN_E7):
                bad = BAD_LATITUDE
            elif lat != NO_FIX and (lon < -HALF_TURN_E7 or lon > HALF_TURN_E7):
                bad = BAD_LONGITUDE
            elif heading > _FULL_TURN_CDEG and heading != UNKNOWN_U16:
                bad = BAD_HEADING
            elif battery > 100 and battery != UNKNOWN_U8:
                bad = BAD_BATTERY
            problem[n] = bad
            time_us[n] = time_ms * 1000
            lat_e7[n] = lat
            lon_e7[n] = lon
            accuracy_mm[n] = -1 if accuracy_dm == UNKNOWN_U16 else accuracy_dm * 100
            speed_cmps[n] = _u16(buffer, at + 22)
            heading_cdeg[n] = 0 if heading == _FULL_TURN_CDEG else heading
            altitude_m[n] = np.int16(_u16(buffer, at + 26))
            status[n] = _u16(buffer, at + 28) & _STATUS_BITS
            battery_pct[n] = battery
            satellites[n] = buffer[at + 31]
            n += 1


def warm() -> None:
    """Compile both kernels."""
    message = np.zeros(HEADER_BYTES + RECORD_BYTES, np.uint8)
    message[[0, 1, 4]] = 0xA7, 1, 1
    start, stop = np.zeros(1, np.int64), np.array([len(message)], np.int64)
    problem, count = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    check(message, start, stop, problem, count)
    arguments = (message, start, count, *(np.zeros(1, dtype) for dtype in _COLUMN_DTYPES), problem)
    unpack(*arguments)


_COLUMN_DTYPES = ("i4", "i8", "i8", "i4", "i4", "i4", "u2", "u2", "i2", "u2", "u1", "u1")
assert UNKNOWN_I16 == -(2**15)  # altitude's sentinel is the wire's own
