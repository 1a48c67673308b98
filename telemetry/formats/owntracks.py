"""OwnTracks ``location`` objects, as phones send them; ``lwt`` says that a phone went offline.

The apps leave out what is zero or unknown, and the two can't be told apart: a field that is not there is
unknown. iOS writes -1 for an unknown speed, course or battery. Speed is in whole km/h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np

from geofence.pings import CHARGING
from geofence.units import E7, NO_ACCURACY, NO_FIX, NO_SEQ, SECOND_US, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16
from telemetry.columns import MARK_TOPIC_MISMATCH, DeviceStatus
from telemetry.formats.gather import Gathered, Part
from telemetry.formats.reading import MAX_TIME_S, Latitude, Longitude, Unreadable, read, scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decode", "excerpt"]

_CMPS_PER_KMH: Final = 100_000 / 3600
_CHARGING_STATES: Final = (2, 3)  # `bs`: charging, full


class _Kind(msgspec.Struct):
    """Any OwnTracks object."""

    type: str = msgspec.field(name="_type")


class _Location(msgspec.Struct, gc=False):
    """An object of ``_type`` location; ``acc`` below zero is how iOS says that the position is not valid."""

    lat: Latitude
    lon: Longitude
    tst: (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_S)]
        | Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_S)]
    )
    acc: Annotated[float, msgspec.Meta(ge=0, le=2e6)] | None = None
    alt: Annotated[float, msgspec.Meta(ge=-32_767, le=32_767)] | None = None
    batt: Annotated[float, msgspec.Meta(ge=-1, le=100)] | None = None
    bs: int | None = None
    vel: Annotated[float, msgspec.Meta(ge=-1, le=2359)] | None = None
    cog: Annotated[float, msgspec.Meta(ge=-1, le=360)] | None = None
    topic: str | None = None


_kind: Final = msgspec.json.Decoder(_Kind)
_location: Final = msgspec.json.Decoder(_Location)


def decode(found: Gathered, index: NDArray[np.intp]) -> None:
    """Decode the messages at ``index``."""
    locations: list[_Location] = []
    message: list[int] = []
    for m in index.tolist():
        payload = found.messages.payload(m)
        try:
            kind = read(_kind, payload).type
            if kind == "lwt":
                found.statuses.append(DeviceStatus(found.device_id(m), False, found.received_us(m)))
                continue
            if kind != "location":
                detail = f"_type is {kind!r}; only location and lwt are taken in"
                raise Unreadable("not_location", detail)  # noqa: TRY301 - one place rejects
            location = read(_location, payload)
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        if location.topic is not None and location.topic != found.topic(m):
            found.marks[m] |= MARK_TOPIC_MISMATCH
        locations.append(location)
        message.append(m)
    if locations:
        found.parts.append(
            Part(_columns(locations), np.array(message, np.int32), np.zeros(len(message), np.int32))
        )


def excerpt(found: Gathered, message: int, _record: int) -> bytes:
    """The message: it holds one position."""
    return found.messages.payload(message)


def _columns(locations: list[_Location]) -> dict[str, NDArray[Any]]:
    n = len(locations)
    cog = scaled((_known(p.cog) for p in locations), 100, UNKNOWN_U16, "u2")
    cog[cog == 36_000] = 0
    charging = [CHARGING if p.bs in _CHARGING_STATES else 0 for p in locations]
    return {
        "fix_time_us": np.array([round(p.tst * SECOND_US) for p in locations], np.int64),
        "boot": np.full(n, NO_SEQ, np.int32),
        "seq": np.full(n, NO_SEQ, np.int64),
        "lat_e7": scaled((p.lat for p in locations), E7, NO_FIX, "i4"),
        "lon_e7": scaled((p.lon for p in locations), E7, NO_FIX, "i4"),
        "accuracy_mm": scaled((p.acc for p in locations), 1000, NO_ACCURACY, "i4"),
        "speed_cmps": scaled((_known(p.vel) for p in locations), _CMPS_PER_KMH, UNKNOWN_U16, "u2"),
        "heading_cdeg": cog,
        "altitude_m": scaled((p.alt for p in locations), 1, UNKNOWN_I16, "i2"),
        "status": np.array(charging, np.uint16),
        "battery_pct": scaled((_known(p.batt) for p in locations), 1, UNKNOWN_U8, "u1"),
        "satellites": np.full(n, UNKNOWN_U8, np.uint8),
    }


def _known(value: float | None) -> float | None:
    return None if value is None or value < 0 else value
