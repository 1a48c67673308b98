"""Binary v1: what ankle monitors and wristbands send. The layout is in docs/wire-format.md."""

from __future__ import annotations

import hmac
from hashlib import blake2s
from typing import TYPE_CHECKING, Final

import numpy as np

from telemetry._kernels import binary_v1 as kernel
from telemetry.columns import MARK_TAG_WRONG
from telemetry.formats.gather import FIX_COLUMNS, Gathered, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FIRST_BYTE", "decode", "excerpt"]

FIRST_BYTE: Final = 0xA7
_TAGGED: Final = 1

# problem of the kernel -> reason, and what is said of it
_SAID: Final = {
    kernel.TOO_SHORT: ("truncated", "the message is shorter than its header says"),
    kernel.TOO_LONG: ("trailing_bytes", "the message is longer than its header says"),
    kernel.BAD_VERSION: ("wrong_version", "only version 1 of the binary format is known"),
    kernel.BAD_FLAGS: ("unknown_flags", "a flag bit other than bit 0 (tag follows) is set"),
    kernel.BAD_KIND: ("unknown_kind", "the device kind is neither 0 (ankle) nor 1 (wrist)"),
    kernel.BAD_COUNT: ("bad_count", f"a message holds 1 to {kernel.MAX_RECORDS} records"),
    kernel.BAD_TIME: ("out_of_range", "the fix time lies beyond the year 9999"),
    kernel.BAD_LATITUDE: ("out_of_range", "the latitude lies beyond 90 degrees"),
    kernel.BAD_LONGITUDE: ("out_of_range", "the longitude lies beyond 180 degrees"),
    kernel.BAD_HALF_FIX: ("half_fix", "one of latitude and longitude is there, the other is not"),
    kernel.BAD_HEADING: ("out_of_range", "the heading lies beyond 360 degrees"),
    kernel.BAD_BATTERY: ("out_of_range", "the battery is above 100 percent"),
}


def decode(found: Gathered, index: NDArray[np.intp]) -> None:
    """Decode the messages at ``index``, whose first byte is FIRST_BYTE."""
    messages = found.messages
    start, stop = messages.start[index], messages.stop[index]
    problem, count = np.zeros(len(index), np.uint8), np.zeros(len(index), np.int64)
    kernel.check(messages.buffer, start, stop, problem, count)
    n = int(count.sum())
    columns = {name: np.empty(n, dtype) for name, dtype, _ in FIX_COLUMNS}
    bad = np.zeros(n, np.uint8)
    kernel.unpack(
        messages.buffer,
        start,
        count,
        columns["boot"],
        columns["seq"],
        columns["fix_time_us"],
        columns["lat_e7"],
        columns["lon_e7"],
        columns["accuracy_mm"],
        columns["speed_cmps"],
        columns["heading_cdeg"],
        columns["altitude_m"],
        columns["status"],
        columns["battery_pct"],
        columns["satellites"],
        bad,
    )
    _check_tags(found, index[problem == kernel.FINE])
    message = np.repeat(index, count).astype(np.int32)
    first = np.cumsum(count) - count
    record = (np.arange(n) - np.repeat(first, count)).astype(np.int32)
    for m, code in zip(index.tolist(), problem.tolist(), strict=True):
        if code != kernel.FINE:
            found.reject(m, *_SAID[code])
    for i in np.flatnonzero(bad).tolist():
        m, r = int(message[i]), int(record[i])
        reason, detail = _SAID[int(bad[i])]
        found.reject(m, reason, f"record {r}: {detail}", excerpt(found, m, r))
    if bad.any():
        good = bad == kernel.FINE
        columns = {name: column[good] for name, column in columns.items()}
        message, record = message[good], record[good]
    found.parts.append(Part(columns, message, record))


def excerpt(found: Gathered, message: int, record: int) -> bytes:
    """A message of this one record; tagged anew where the original's tag was right."""
    payload = found.messages.payload(message)
    if payload[4:6] == b"\x01\x00":
        return payload
    at = kernel.HEADER_BYTES + kernel.RECORD_BYTES * record
    device_id = found.device_id(message)
    key = found.keys(device_id)
    tagged = key is not None and not found.marks[message] & MARK_TAG_WRONG
    head = bytes((FIRST_BYTE, 1, _TAGGED if tagged else 0, payload[3], 1, 0)) + payload[6:8]
    alone = head + payload[at : at + kernel.RECORD_BYTES]
    return alone + _tag(device_id, alone, key) if tagged and key is not None else alone


def _check_tags(found: Gathered, index: NDArray[np.intp]) -> None:
    for m in found.with_key(index).tolist():
        device_id = found.device_id(m)
        key = found.keys(device_id)
        assert key is not None
        payload = found.messages.payload(m)
        body, tag = payload[: -kernel.TAG_BYTES], payload[-kernel.TAG_BYTES :]
        if not payload[2] & _TAGGED or not hmac.compare_digest(_tag(device_id, body, key), tag):
            found.marks[m] |= MARK_TAG_WRONG


def _tag(device_id: str, body: bytes, key: bytes) -> bytes:
    return blake2s(device_id.encode() + b"\0" + body, digest_size=kernel.TAG_BYTES, key=key).digest()
