"""What goes over the air: binary v1 and JSON v1, as the firmware writes them.

Written from the wire format's text, and on purpose not shared with the engine's decoder: the golden frames in
``tests/golden`` keep the two honest.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import blake2b, blake2s
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "KIND_ANKLE",
    "KIND_PHONE",
    "KIND_WRIST",
    "MAX_RECORDS",
    "NO_FIX",
    "RECORD",
    "SOURCES",
    "STATUS_BITS",
    "binary_v1",
    "json_v1",
    "lane_of",
    "rfc3339",
    "topic",
]

# One record of binary v1, 32 bytes. The firmware keeps its flash in this form, so sending is a copy.
RECORD: Final = np.dtype(
    [
        ("seq", "<u4"),
        ("time_ms", "<u8"),  # UTC milliseconds since 1970, the device's clock
        ("lat_e7", "<i4"),
        ("lon_e7", "<i4"),
        ("accuracy_dm", "<u2"),  # 68 % radius, 0.1 m
        ("speed_cmps", "<u2"),
        ("heading_cdeg", "<u2"),
        ("altitude_m", "<i2"),
        ("status", "<u2"),
        ("battery_pct", "u1"),
        ("satellites", "u1"),
    ]
)
assert RECORD.itemsize == 32

MAX_RECORDS: Final = 1024
NO_FIX: Final = -(2**31)
_NO_U16: Final = 65_535
_NO_U8: Final = 255
_NO_I16: Final = -32_768
_TAG_FOLLOWS: Final = 1

KIND_ANKLE: Final = 0
KIND_WRIST: Final = 1
KIND_PHONE: Final = 2  # a check-in line: it sends no pings, so binary v1 has no number for it

STATUS_BITS: Final = {
    "strap_open": 1 << 0,
    "case_open": 1 << 1,
    "charging": 1 << 2,
    "moving": 1 << 3,
    "beacon_in_range": 1 << 4,
    "jamming": 1 << 5,
    "button": 1 << 6,
    "buffered": 1 << 7,
}
SOURCES: Final = ("gnss", "wifi", "cell", "beacon")  # bits 8-9 of the status


def lane_of(device_id: str) -> str:
    """The two hex digits in a device's topics: a one-byte BLAKE2b hash of its id."""
    return blake2b(device_id.encode(), digest_size=1).hexdigest()


def topic(root: str, device_id: str, leaf: str) -> str:
    """``{root}/{lane}/{device_id}/{leaf}``."""
    return f"{root}/{lane_of(device_id)}/{device_id}/{leaf}"


def binary_v1(
    records: NDArray[Any], *, kind: int, boot: int, device_id: str = "", key: bytes | None = None
) -> bytes:
    """A message of 1..1024 records (RECORD); with a key, tagged for ``device_id``."""
    if not 1 <= len(records) <= MAX_RECORDS:
        raise ValueError(f"a message holds 1 to {MAX_RECORDS} records, not {len(records)}; split it")
    head = (
        bytes((0xA7, 1, _TAG_FOLLOWS if key else 0, kind))
        + np.array([len(records), boot & 0xFFFF], "<u2").tobytes()
    )
    message = head + records.tobytes()
    if key is None:
        return message
    return message + blake2s(device_id.encode() + b"\0" + message, digest_size=16, key=key).digest()


def json_v1(records: NDArray[Any], *, boot: int) -> bytes:
    """The same as JSON: one object, or a list when there are several; what is unknown is left out."""
    objects = [_as_object(record, boot) for record in records]
    return json.dumps(objects[0] if len(objects) == 1 else objects, separators=(",", ":")).encode()


def rfc3339(time_ms: int) -> str:
    """UTC milliseconds as RFC 3339 text with ``Z``."""
    return (
        datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_ms % 1000:03d}Z"
    )


def _as_object(record: Any, boot: int) -> dict[str, Any]:
    said: dict[str, Any] = {"boot": boot, "seq": int(record["seq"]), "time": rfc3339(int(record["time_ms"]))}
    if record["lat_e7"] != NO_FIX:
        said["lat"] = int(record["lat_e7"]) / 1e7
        said["lon"] = int(record["lon_e7"]) / 1e7
    for field, unknown, name, scale in (
        ("accuracy_dm", _NO_U16, "accuracy_m", 10),
        ("speed_cmps", _NO_U16, "speed_mps", 100),
        ("heading_cdeg", _NO_U16, "heading_deg", 100),
        ("altitude_m", _NO_I16, "altitude_m", 1),
        ("battery_pct", _NO_U8, "battery_pct", 1),
        ("satellites", _NO_U8, "satellites", 1),
    ):
        value = int(record[field])
        if value != unknown:
            said[name] = value / scale if scale > 1 else value
    status = int(record["status"])
    said["status"] = [name for name, bit in STATUS_BITS.items() if status & bit]
    if "lat" in said:
        said["source"] = SOURCES[status >> 8 & 3]
    return said
