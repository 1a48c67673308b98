"""LwM2M's Location object (6) as JSON: SenML (RFC 8428, LwM2M 1.1) or the JSON of LwM2M 1.0.

Resources: 0 latitude, 1 longitude, 2 altitude, 3 radius (the uncertainty, m), 5 timestamp (s), 6 speed
(m/s). Records of several times, as a notification of stored readings has them, are several pings: one for
each instance and time. Resource 4, the velocity as an opaque 3GPP value, is passed over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from geofence.units import SECOND_US
from telemetry.formats.fixes import Fix, Number, part
from telemetry.formats.reading import Unreadable, read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from telemetry.formats.gather import Gathered

__all__ = ["decode", "excerpt"]

_LAT, _LON, _ALTITUDE, _RADIUS, _TIME, _SPEED = "0", "1", "2", "3", "5", "6"
_PATH: Final = re.compile(r"/6/(\d{1,5})/(\d{1,5})")
_OLDEST_ABSOLUTE_S: Final = 1 << 28  # RFC 8428 4.5.3: a time below is relative to the reader's clock


class _Record(msgspec.Struct, gc=False):
    """One entry of a SenML pack."""

    bn: str | None = None
    bt: Number | None = None
    n: str = ""
    t: Number = 0.0
    v: Number | None = None


class _Entry(msgspec.Struct, gc=False):
    """One entry of LwM2M 1.0."""

    n: str = ""
    t: Number = 0.0
    v: Number | None = None


class _Old(msgspec.Struct, gc=False):
    """A document of LwM2M 1.0."""

    e: list[_Entry]
    bn: str = ""
    bt: Number = 0.0


_pack: Final = msgspec.json.Decoder(list[_Record] | _Old)

_Reading = dict[str, float]


def decode(found: Gathered, index: NDArray[np.intp]) -> None:
    """Decode the messages at ``index``."""
    fixes: list[Fix] = []
    message: list[int] = []
    record: list[int] = []
    for m in index.tolist():
        try:
            mine = [fix.checked() for fix in _fixes(found.messages.payload(m))]
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        fixes += mine
        message += [m] * len(mine)
        record += range(len(mine))
    if fixes:
        found.parts.append(part(fixes, message, record))


def excerpt(found: Gathered, message: int, record: int) -> bytes:
    """The reading that ``record`` counts, as a SenML pack of its own."""
    (instance, time_s), reading = list(_readings(found.messages.payload(message)).items())[record]
    pack = [{"n": number, "v": value} for number, value in reading.items()]
    pack[0] |= {"bn": f"/6/{instance}/", "bt": time_s}
    return msgspec.json.encode(pack)


def _fixes(payload: bytes) -> list[Fix]:
    readings = _readings(payload)
    if not readings:
        raise Unreadable("missing_field", "no resource of the Location object (/6/…) is in it")
    return [_fix(time_s, reading) for (_, time_s), reading in readings.items()]


def _readings(payload: bytes) -> dict[tuple[str, float], _Reading]:
    """The values of each instance and time, in order of appearance."""
    document = read(_pack, payload)
    readings: dict[tuple[str, float], _Reading] = {}
    base_name, base_time_s = "", 0.0
    if isinstance(document, _Old):
        base_name, base_time_s, entries = document.bn, document.bt, document.e
    else:
        entries = document
    for entry in entries:
        if isinstance(entry, _Record):
            base_name = base_name if entry.bn is None else entry.bn
            base_time_s = base_time_s if entry.bt is None else entry.bt
        path = _PATH.fullmatch(base_name + entry.n)
        if path is None or entry.v is None:
            continue
        instance, number = path.groups()
        readings.setdefault((instance, base_time_s + entry.t), {})[number] = entry.v
    return readings


def _fix(time_s: float, reading: _Reading) -> Fix:
    time_s = reading.get(_TIME, time_s)
    if time_s < _OLDEST_ABSOLUTE_S:
        raise Unreadable(
            "bad_time", f"the time is {time_s:g}; send resource 5, or an absolute time, in seconds since 1970"
        )
    speed_mps = reading.get(_SPEED)
    return Fix(
        time_us=round(time_s * SECOND_US),
        lat=reading.get(_LAT),
        lon=reading.get(_LON),
        accuracy_m=reading.get(_RADIUS),
        speed_cmps=None if speed_mps is None else speed_mps * 100,
        altitude_m=reading.get(_ALTITUDE),
    )
