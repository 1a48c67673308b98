"""JSON v1: one ping as an object, or a list. Of a list, good pings count and bad ones are set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np

from geofence import to_rfc3339
from geofence.pings import SOURCE_MASK, SOURCE_SHIFT, SOURCES, STATUS_NAMES
from geofence.units import (
    E7,
    NO_ACCURACY,
    NO_FIX,
    NO_SEQ,
    UNKNOWN_I16,
    UNKNOWN_U8,
    UNKNOWN_U16,
)
from telemetry.columns import MARK_TOPIC_MISMATCH
from telemetry.formats.gather import Gathered, Part
from telemetry.formats.reading import (
    Latitude,
    Longitude,
    Moment,
    Unreadable,
    read,
    scaled,
    times_us,
    whole,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence import Pings

__all__ = ["decode", "encode", "excerpt"]

_Status = Literal[
    "strap_open",
    "case_open",
    "charging",
    "moving",
    "beacon_in_range",
    "jamming",
    "button",
    "buffered",
]
SLAB_PINGS: Final = 2048

_BITS: Final = {name: 1 << bit for bit, name in enumerate(STATUS_NAMES)}
_SOURCE_BITS: Final[dict[str | None, int]] = {None: 0} | {
    name: number << SOURCE_SHIFT for number, name in enumerate(SOURCES)
}


class _Ping(msgspec.Struct, gc=False):
    """One object; the bounds are those of the columns. It is in no cycle, so the collector need not look."""

    time: Moment
    boot: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None
    accuracy_m: Annotated[float, msgspec.Meta(ge=0, le=2e6)] | None = None
    speed_mps: Annotated[float, msgspec.Meta(ge=0, le=655.34)] | None = None
    heading_deg: Annotated[float, msgspec.Meta(ge=0, le=360)] | None = None
    altitude_m: Annotated[float, msgspec.Meta(ge=-32_767, le=32_767)] | None = None
    battery_pct: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    satellites: Annotated[int, msgspec.Meta(ge=0, le=254)] | None = None
    status: list[_Status] | None = None
    source: Literal["gnss", "wifi", "cell", "beacon"] | None = None
    device_id: str | None = None


PAYLOAD: Final = _Ping | list[_Ping]  # what a message may hold
_one_or_many: Final = msgspec.json.Decoder(PAYLOAD)
_one: Final = msgspec.json.Decoder(_Ping)
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_raw_either: Final = msgspec.json.Decoder(msgspec.Raw | list[msgspec.Raw])


def decode(found: Gathered, index: NDArray[np.intp]) -> None:
    """Decode the messages at ``index``."""
    slab = _Slab(found)
    for m, payload in zip(index.tolist(), found.messages.payloads(index), strict=True):
        document = _quickly(payload)
        if type(document) is _Ping and document.device_id is None and _is_whole(document):
            slab.add(document, m, 0)
            continue
        good = _good(found, m, payload) if document is None else _numbered(document)
        if not good and document is not None:
            found.reject(m, "empty_list", "the list holds no ping")
        for r, ping in good:
            if not _is_whole(ping):
                detail = "one of lat and lon is there, the other is not"
                found.reject(m, "half_fix", detail, _element(payload, r))
                continue
            if ping.device_id is not None and ping.device_id != found.device_id(m):
                found.marks[m] |= MARK_TOPIC_MISMATCH
            slab.add(ping, m, r)
    slab.end()


class _Slab:
    """Pings on their way to columns, some thousand at a time: what fits in the cache, and few enough objects
    that the garbage collector does not look through all of them again and again (twice as fast).
    """

    def __init__(self, found: Gathered) -> None:
        self._found = found
        self._pings: list[_Ping] = []
        self._message: list[int] = []
        self._record: list[int] = []

    def add(self, ping: _Ping, message: int, record: int) -> None:
        self._pings.append(ping)
        self._message.append(message)
        self._record.append(record)
        if len(self._pings) == SLAB_PINGS:
            self.end()

    def end(self) -> None:
        if self._pings:
            message, record = np.array(self._message, np.int32), np.array(self._record, np.int32)
            self._found.parts.append(Part(_columns(self._pings), message, record))
        for column in (self._pings, self._message, self._record):
            column.clear()


def excerpt(found: Gathered, message: int, record: int) -> bytes:
    """The one object that ``record`` counts."""
    return _element(found.messages.payload(message), record)


def _quickly(payload: bytes) -> _Ping | list[_Ping] | None:
    """The document if it is plain and good; None: look closer. Most messages need no more than this."""
    if not payload.isascii():  # msgspec does not look inside fields that it skips
        return None
    try:
        document: _Ping | list[_Ping] = _one_or_many.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return None
    return document


def encode(pings: Pings, i: int) -> bytes:
    """A ping as JSON v1: what would have to be published to have it again."""
    said: dict[str, Any] = {"time": to_rfc3339(int(pings.fix_time_us[i]))}
    if pings.boot[i] != NO_SEQ:
        said["boot"] = int(pings.boot[i])
    if pings.seq[i] != NO_SEQ:
        said["seq"] = int(pings.seq[i])
    if pings.lat_e7[i] != NO_FIX:
        said["lat"], said["lon"] = int(pings.lat_e7[i]) / E7, int(pings.lon_e7[i]) / E7
    for name, column, scale, unknown in (
        ("accuracy_m", pings.accuracy_mm, 1000, NO_ACCURACY),
        ("speed_mps", pings.speed_cmps, 100, UNKNOWN_U16),
        ("heading_deg", pings.heading_cdeg, 100, UNKNOWN_U16),
        ("altitude_m", pings.altitude_m, 1, UNKNOWN_I16),
        ("battery_pct", pings.battery_pct, 1, UNKNOWN_U8),
        ("satellites", pings.satellites, 1, UNKNOWN_U8),
    ):
        value = int(column[i])
        if value != unknown:
            said[name] = value if scale == 1 else value / scale
    status = int(pings.status[i])
    said["status"] = [name for name, bit in _BITS.items() if status & bit]
    said["source"] = SOURCES[(status & SOURCE_MASK) >> SOURCE_SHIFT]
    return msgspec.json.encode(said)


def _is_whole(ping: _Ping) -> bool:
    return (ping.lat is None) is (ping.lon is None)


def _numbered(document: _Ping | list[_Ping]) -> list[tuple[int, _Ping]]:
    return list(enumerate(document)) if isinstance(document, list) else [(0, document)]


def _good(found: Gathered, m: int, payload: bytes) -> list[tuple[int, _Ping]]:
    """The good pings of a message with something bad in it; the bad are set aside, or the whole is."""
    try:
        return _numbered(read(_one_or_many, payload))
    except Unreadable as problem:
        worst = problem
    try:
        elements = [bytes(element) for element in read(_raw_list, payload)]
    except Unreadable as whole_problem:
        if payload.lstrip().startswith(b"["):
            worst = whole_problem
        found.reject(m, worst.reason, worst.detail)
        return []
    good = []
    for r, element in enumerate(elements):
        try:
            good.append((r, read(_one, element)))
        except Unreadable as bad:
            found.reject(m, bad.reason, f"ping {r} of the list: {bad.detail}", element)
    return good


def _element(payload: bytes, record: int) -> bytes:
    document = _raw_either.decode(payload) if payload.lstrip().startswith(b"[") else payload
    return bytes(document[record]) if isinstance(document, list) else payload


def _columns(pings: list[_Ping]) -> dict[str, NDArray[Any]]:
    heading_cdeg = scaled([p.heading_deg for p in pings], 100, UNKNOWN_U16, "u2")
    heading_cdeg[heading_cdeg == 36_000] = 0
    return {
        "fix_time_us": times_us([p.time for p in pings]),
        "boot": whole([p.boot for p in pings], NO_SEQ, "i4"),
        "seq": whole([p.seq for p in pings], NO_SEQ, "i8"),
        "lat_e7": scaled([p.lat for p in pings], E7, NO_FIX, "i4"),
        "lon_e7": scaled([p.lon for p in pings], E7, NO_FIX, "i4"),
        "accuracy_mm": scaled([p.accuracy_m for p in pings], 1000, NO_ACCURACY, "i4"),
        "speed_cmps": scaled([p.speed_mps for p in pings], 100, UNKNOWN_U16, "u2"),
        "heading_cdeg": heading_cdeg,
        "altitude_m": scaled([p.altitude_m for p in pings], 1, UNKNOWN_I16, "i2"),
        "status": _statuses(pings),
        "battery_pct": scaled([p.battery_pct for p in pings], 1, UNKNOWN_U8, "u1"),
        "satellites": whole([p.satellites for p in pings], UNKNOWN_U8, "u1"),
    }


def _statuses(pings: list[_Ping]) -> NDArray[np.uint16]:
    bits = [_SOURCE_BITS[p.source] for p in pings]
    for i, names in enumerate([p.status for p in pings]):
        if names:
            for name in names:
                bits[i] |= _BITS[name]
    return np.array(bits, np.uint16)
