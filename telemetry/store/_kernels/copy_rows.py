"""Rows of PostgreSQL's binary COPY format, written from columns and read into columns.

A row is an int16 count of fields; a field is an int32 length and that many bytes, big-endian; length -1 is
NULL.
https://www.postgresql.org/docs/current/sql-copy.html ("Binary Format").
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from geofence.units import NO_ACCURACY, NO_FIX, NO_SEQ, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16
from telemetry.store.cells import CELL_E7, COLUMNS_OF_CELLS, FIRST_COLUMN, FIRST_ROW

__all__ = ["PING_BYTES", "count_rows", "pack_pings", "same_bytes", "unpack_rows"]

PING_FIELDS: Final = 19
PING_BYTES: Final = 2 + PING_FIELDS * 4 + 4 * 8 + 9 * 4 + 4 * 2 + 1  # without the bytes of the device id
POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, where timestamptz counts from

_HASH_BASIS: Final = 0x1CBF29CE484222325 & 0x7FFFFFFFFFFFFFFF
_HASH_PRIME: Final = 0x100000001B3


@njit(nogil=True, cache=True, inline="always")
def _put(out, at, value, width):
    """Write a field of ``width`` bytes at ``at``; gives where the next one goes.

    The index is unsigned: a signed one may count from the end, and to ask that of every byte takes four times
    as long as to write it.
    """
    first = np.uintp(at)
    for k in range(3):
        out[first + np.uintp(k)] = 0
    out[first + np.uintp(3)] = width
    for k in range(width):
        out[first + np.uintp(4 + k)] = (value >> (8 * (width - 1 - k))) & 0xFF
    return at + 4 + width


@njit(nogil=True, cache=True, inline="always")
def _put_null(out, at):
    """Write a NULL at ``at``; gives where the next one goes."""
    for k in range(4):
        out[at + k] = 0xFF
    return at + 4


@njit(nogil=True, cache=True)
def pack_pings(
    order,
    id_bytes,
    id_start,
    device,
    fix_time_us,
    received_time_us,
    boot,
    seq,
    lat_e7,
    lon_e7,
    accuracy_mm,
    speed_cmps,
    heading_cdeg,
    altitude_m,
    status,
    battery_pct,
    satellites,
    marks,
    judged,
    share,
    batch,
    out,
):
    """Write pings as COPY rows, fields in the order of ``telemetry.store.packing.PING_COLUMNS``.

    order            : int64 (m,)   which pings, in which order
    id_bytes         : uint8 (b,)   the device ids, one after the other, UTF-8
    id_start         : int64 (d+1,) where the id of each device slot begins
    device           : int32 (n,)
    fix_time_us, received_time_us, seq : int64 (n,)
    boot, lat_e7, lon_e7, accuracy_mm  : int32 (n,)
    speed_cmps, heading_cdeg, status, marks : uint16 (n,)
    altitude_m       : int16 (n,)
    battery_pct, satellites : uint8 (n,)
    judged           : bool (n,)
    share, batch     : int64
    out              : uint8, at least m * PING_BYTES and the ids; written

    Gives the bytes written. The unknown value of a column becomes NULL.
    """
    at = 0
    for j in range(len(order)):
        i = order[j]
        out[at] = 0
        out[at + 1] = PING_FIELDS
        at = _put(out, at + 2, fix_time_us[i] - POSTGRES_EPOCH_US, 8)
        at = _put(out, at, received_time_us[i] - POSTGRES_EPOCH_US, 8)
        at = _put_null(out, at) if seq[i] == NO_SEQ else _put(out, at, seq[i], 8)
        at = _put(out, at, batch, 8)
        lat, lon = lat_e7[i], lon_e7[i]
        at = _put_null(out, at) if lat == NO_FIX else _put(out, at, lat, 4)
        at = _put_null(out, at) if lon == NO_FIX else _put(out, at, lon, 4)
        if lat == NO_FIX or lon == NO_FIX:
            at = _put_null(out, at)
        else:
            row = lat // CELL_E7 + FIRST_ROW
            at = _put(out, at, row * COLUMNS_OF_CELLS + lon // CELL_E7 + FIRST_COLUMN, 4)
        at = _put_null(out, at) if accuracy_mm[i] == NO_ACCURACY else _put(out, at, accuracy_mm[i], 4)
        at = _put_null(out, at) if speed_cmps[i] == UNKNOWN_U16 else _put(out, at, speed_cmps[i], 4)
        at = _put_null(out, at) if heading_cdeg[i] == UNKNOWN_U16 else _put(out, at, heading_cdeg[i], 4)
        at = _put(out, at, status[i], 4)
        at = _put(out, at, marks[i], 4)
        at = _put_null(out, at) if boot[i] == NO_SEQ else _put(out, at, boot[i], 4)
        at = _put_null(out, at) if altitude_m[i] == UNKNOWN_I16 else _put(out, at, altitude_m[i], 2)
        at = _put_null(out, at) if battery_pct[i] == UNKNOWN_U8 else _put(out, at, battery_pct[i], 2)
        at = _put_null(out, at) if satellites[i] == UNKNOWN_U8 else _put(out, at, satellites[i], 2)
        at = _put(out, at, share, 2)
        at = _put(out, at, 1 if judged[i] else 0, 1)
        begin = id_start[device[i]]
        length = id_start[device[i] + 1] - begin
        out[at] = 0
        out[at + 1] = 0
        out[at + 2] = (length >> 8) & 0xFF
        out[at + 3] = length & 0xFF
        at += 4
        for k in range(length):
            out[at + k] = id_bytes[begin + k]
        at += length
    return at


@njit(nogil=True, cache=True)
def count_rows(buffer, at):
    """How many rows stand in ``buffer`` (uint8) from ``at`` to its end or its trailer; -1: it is damaged."""
    n = 0
    size = len(buffer)
    while at + 2 <= size:
        fields = (buffer[at] << 8) | buffer[at + 1]
        if fields == 0xFFFF:
            return n
        at += 2
        for _ in range(fields):
            if at + 4 > size:
                return -1
            length = (buffer[at] << 24) | (buffer[at + 1] << 16) | (buffer[at + 2] << 8) | buffer[at + 3]
            at += 4
            if length != 0xFFFFFFFF:
                at += length
        if at > size:
            return -1
        n += 1
    return n if at == size else -1


@njit(nogil=True, cache=True)
def unpack_rows(buffer, at, unknown, values, text_start, text_stop, text_hash):
    """Read rows of which the first field is a text and all others are integers or booleans.

    buffer     : uint8 (b,)    checked by ``count_rows``
    at         : int64         where the first row begins
    unknown    : int64 (k,)    what stands for NULL in each integer column
    values     : int64 (k, n)  written
    text_start, text_stop : int64 (n,)  bounds of the text in ``buffer``; written
    text_hash  : int64 (n,)    FNV-1a of the text; written

    Gives -1, or the first row that has another shape.
    """
    columns, n = values.shape
    for i in range(n):
        if ((buffer[at] << 8) | buffer[at + 1]) != columns + 1:
            return i
        at += 2
        length = (buffer[at] << 24) | (buffer[at + 1] << 16) | (buffer[at + 2] << 8) | buffer[at + 3]
        if length == 0xFFFFFFFF:
            return i
        at += 4
        text_start[i] = at
        text_stop[i] = at + length
        hashed = _HASH_BASIS
        for k in range(at, at + length):
            hashed = (hashed ^ buffer[k]) * _HASH_PRIME
        text_hash[i] = hashed
        at += length
        for c in range(columns):
            length = (buffer[at] << 24) | (buffer[at + 1] << 16) | (buffer[at + 2] << 8) | buffer[at + 3]
            at += 4
            if length == 0xFFFFFFFF:
                values[c, i] = unknown[c]
                continue
            if length > 8 or length < 1:
                return i
            value = 0 if buffer[at] < 128 else -1
            for k in range(length):
                value = (value << 8) | buffer[at + k]
            values[c, i] = value
            at += length
    return -1


@njit(nogil=True, cache=True)
def same_bytes(buffer, start, stop, like):
    """Whether each text equals the one that stands for it.

    buffer      : uint8 (b,)
    start, stop : int64 (n,)  bounds of the texts
    like        : int64 (n,)  index of the text to compare with
    """
    for i in range(len(start)):
        j = like[i]
        length = stop[i] - start[i]
        if stop[j] - start[j] != length:
            return False
        for k in range(length):
            if buffer[start[i] + k] != buffer[start[j] + k]:
                return False
    return True
