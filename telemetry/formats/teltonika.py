"""Teltonika's Codec JSON, as its trackers publish it over MQTT: ``{"state": {"reported": {...}}}``.

Fields have short names and I/O elements their AVL numbers. A tracker without satellites writes the place
"0.000000,0.000000", or the last one it knew; neither is a fix, so without satellites there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from geofence.pings import JAMMING, MOVING
from telemetry.formats.fixes import Fix, Number, part
from telemetry.formats.reading import MAX_TIME_MS, Unreadable, read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from telemetry.formats.gather import Gathered

__all__ = ["decode", "excerpt"]

_CMPS_PER_KMH: Final = 100_000 / 3600


class _Reported(msgspec.Struct, gc=False):
    """The fields that are read; 113, 240 and 249 are AVL numbers."""

    ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)] | str  # milliseconds; some firmware quotes it
    latlng: str | None = None
    alt: Number | None = None
    ang: Number | None = None
    sp: Number | None = None  # km/h
    sat: Annotated[int, msgspec.Meta(ge=0, le=254)] | None = None
    battery: Number | None = msgspec.field(name="113", default=None)
    movement: int | None = msgspec.field(name="240", default=None)
    jamming: int | None = msgspec.field(name="249", default=None)


class _State(msgspec.Struct, gc=False):
    reported: _Reported


class _Document(msgspec.Struct, gc=False):
    state: _State


_document: Final = msgspec.json.Decoder(_Document)


def decode(found: Gathered, index: NDArray[np.intp]) -> None:
    """Decode the messages at ``index``."""
    fixes: list[Fix] = []
    message: list[int] = []
    for m in index.tolist():
        try:
            fix = _fix(read(_document, found.messages.payload(m)).state.reported).checked()
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        fixes.append(fix)
        message.append(m)
    if fixes:
        found.parts.append(part(fixes, message, [0] * len(fixes)))


def excerpt(found: Gathered, message: int, _record: int) -> bytes:
    """The message: it holds one position."""
    return found.messages.payload(message)


def _fix(said: _Reported) -> Fix:
    fix = Fix(
        time_us=_time_us(said.ts),
        battery_pct=said.battery,
        satellites=said.sat,
        status=(MOVING if said.movement else 0) | (JAMMING if said.jamming else 0),
    )
    if said.latlng is None or said.sat == 0:
        return fix
    fix.lat, fix.lon = _place(said.latlng)
    fix.altitude_m, fix.heading_deg = said.alt, said.ang
    fix.speed_cmps = None if said.sp is None else said.sp * _CMPS_PER_KMH
    return fix


def _time_us(ts: int | str) -> int:
    if isinstance(ts, str):
        if not (ts.isascii() and ts.isdigit() and len(ts) <= 15):
            raise Unreadable("bad_time", f"ts is {ts!r}; it must be milliseconds since 1970")
        ts = int(ts)
    return ts * 1000


def _place(latlng: str) -> tuple[float, float]:
    lat, comma, lon = latlng.partition(",")
    try:
        if comma:
            return float(lat), float(lon)
    except ValueError:
        pass
    raise Unreadable("wrong_type", f"latlng is {latlng!r}; it must be latitude,longitude in degrees")
