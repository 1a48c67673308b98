"""Units and sentinels: what a column holds, and the value that says "unknown".

Inside Ringfence a position is two int32 counts of 1e-7 degree (1.1 cm, the native unit of GNSS
receivers), a time is int64 microseconds since 1970 UTC, a length is int32 millimetres. Values are
converted once, where data comes in.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

__all__ = [
    "E7",
    "HALF_TURN_E7",
    "MAX_LON_E7",
    "NO_ACCURACY",
    "NO_FIX",
    "NO_SEQ",
    "NO_TIME",
    "QUARTER_TURN_E7",
    "SECOND_US",
    "UNKNOWN_I16",
    "UNKNOWN_U8",
    "UNKNOWN_U16",
    "from_rfc3339",
    "to_rfc3339",
]

E7: Final = 10_000_000  # counts per degree
QUARTER_TURN_E7: Final = 90 * E7
HALF_TURN_E7: Final = 180 * E7
MAX_LON_E7: Final = 214 * E7  # the largest whole degree that fits int32; zones may run past +-180 up to here

NO_FIX: Final = int(np.iinfo(np.int32).min)  # in lat_e7 and lon_e7
NO_ACCURACY: Final = -1  # in accuracy_mm
NO_SEQ: Final = -1  # in boot and seq: the format has none
NO_TIME: Final = int(np.iinfo(np.int64).min)  # in any time_us: not yet
UNKNOWN_U8: Final = 255  # battery_pct, satellites
UNKNOWN_U16: Final = 65_535  # speed_cmps, heading_cdeg
UNKNOWN_I16: Final = -32_768  # altitude_m

SECOND_US: Final = 1_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_rfc3339(time_us: int) -> str:
    """UTC microseconds as RFC 3339 text with ``Z``; the fraction is left out when it is zero.

    >>> to_rfc3339(1_763_971_200_123_000)
    '2025-11-24T08:00:00.123Z'
    """
    moment = _EPOCH + timedelta(microseconds=int(time_us))
    text = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    whole, fraction = text.split(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction.ljust(3, '0')}Z" if fraction else f"{whole}Z"


def from_rfc3339(text: str) -> int:
    """RFC 3339 text (with ``Z`` or an offset) as UTC microseconds.

    Raises ValueError when the text is no date and time, or names no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no UTC offset; end it with Z or +hh:mm")
    return (moment - _EPOCH) // _MICROSECOND
