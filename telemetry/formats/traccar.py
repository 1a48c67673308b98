"""Traccar Client's JSON, as version 9 of the app and its OsmAnd protocol have it.

A ``location`` with ``timestamp`` and ``coords`` in SI units; -1 is an unknown speed or heading. The app
says itself when the phone made the position up (``mock``): such a fix is not one, and is set aside.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads it
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from geofence.pings import CHARGING, MOVING
from telemetry.columns import MARK_TOPIC_MISMATCH
from telemetry.formats.fixes import Fix, Number, part
from telemetry.formats.reading import Latitude, Longitude, Unreadable, read, time_us

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from telemetry.formats.gather import Gathered

__all__ = ["decode", "excerpt"]


class _Coords(msgspec.Struct, gc=False):
    latitude: Latitude
    longitude: Longitude
    accuracy: Number | None = None
    speed: Number | None = None
    heading: Number | None = None
    altitude: Number | None = None


class _Battery(msgspec.Struct, gc=False):
    level: Number | None = None
    is_charging: bool = False


class _Location(msgspec.Struct, gc=False):
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    coords: _Coords
    is_moving: bool = False
    mock: bool = False
    battery: _Battery | None = None


class _Report(msgspec.Struct, gc=False):
    location: _Location
    device_id: str | int | None = None


_report: Final = msgspec.json.Decoder(_Report)


def decode(found: Gathered, index: NDArray[np.intp]) -> None:
    """Decode the messages at ``index``."""
    fixes: list[Fix] = []
    message: list[int] = []
    for m in index.tolist():
        try:
            report = read(_report, found.messages.payload(m))
            fix = _fix(report.location).checked()
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        if report.device_id is not None and str(report.device_id) != found.device_id(m):
            found.marks[m] |= MARK_TOPIC_MISMATCH
        fixes.append(fix)
        message.append(m)
    if fixes:
        found.parts.append(part(fixes, message, [0] * len(fixes)))


def excerpt(found: Gathered, message: int, _record: int) -> bytes:
    """The message: it holds one position."""
    return found.messages.payload(message)


def _fix(location: _Location) -> Fix:
    if location.mock:
        raise Unreadable("mock_location", "the phone says that an app made this position up (mock)")
    coords, battery = location.coords, location.battery or _Battery()
    speed_mps = _known(coords.speed)
    level = _known(battery.level)
    return Fix(
        time_us=time_us(location.timestamp),
        lat=coords.latitude,
        lon=coords.longitude,
        accuracy_m=_known(coords.accuracy),
        speed_cmps=None if speed_mps is None else speed_mps * 100,
        heading_deg=_known(coords.heading),
        altitude_m=coords.altitude,
        battery_pct=None if level is None else level * 100,
        status=(MOVING if location.is_moving else 0) | (CHARGING if battery.is_charging else 0),
    )


def _known(value: float | None) -> float | None:
    return None if value is None or value < 0 else value
