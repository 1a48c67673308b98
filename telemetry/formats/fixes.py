"""One position as other makers' JSON formats say it, and many of them as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from geofence.units import E7, NO_ACCURACY, NO_FIX, NO_SEQ, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16
from telemetry.formats.gather import Part
from telemetry.formats.reading import MAX_TIME_MS, Unreadable, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Fix", "part"]

MAX_SPEED_CMPS = 65_534
MAX_HEADING_DEG = 360


class Fix(msgspec.Struct, gc=False):
    """What one ping says; None: not known. ``part`` refuses nothing: call ``checked`` first."""

    time_us: int
    lat: float | None = None
    lon: float | None = None
    accuracy_m: float | None = None
    speed_cmps: float | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    battery_pct: float | None = None
    satellites: int | None = None
    status: int = 0

    def checked(self) -> Fix:
        """Itself; raises Unreadable where a value lies outside its column."""
        bounds: tuple[tuple[str, float, float], ...] = (
            ("time_us", 0, MAX_TIME_MS * 1000),
            ("lat", -90, 90),
            ("lon", -180, 180),
            ("accuracy_m", 0, 2e6),
            ("speed_cmps", 0, MAX_SPEED_CMPS),
            ("heading_deg", 0, MAX_HEADING_DEG),
            ("altitude_m", -32_767, 32_767),
            ("battery_pct", 0, 100),
            ("satellites", 0, 254),
        )
        for name, low, high in bounds:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise Unreadable("out_of_range", f"{name} is {value}; it must lie within {low}..{high}")
        if (self.lat is None) is not (self.lon is None):
            raise Unreadable("half_fix", "one of latitude and longitude is there, the other is not")
        return self


Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


def part(fixes: Sequence[Fix], message: Sequence[int], record: Sequence[int]) -> Part:
    """Columns of the fixes; message and record: where each came from, see Part."""
    n = len(fixes)
    heading = scaled((fix.heading_deg for fix in fixes), 100, UNKNOWN_U16, "u2")
    heading[heading == 100 * MAX_HEADING_DEG] = 0
    columns: dict[str, NDArray[Any]] = {
        "fix_time_us": np.array([fix.time_us for fix in fixes], np.int64),
        "boot": np.full(n, NO_SEQ, np.int32),
        "seq": np.full(n, NO_SEQ, np.int64),
        "lat_e7": scaled((fix.lat for fix in fixes), E7, NO_FIX, "i4"),
        "lon_e7": scaled((fix.lon for fix in fixes), E7, NO_FIX, "i4"),
        "accuracy_mm": scaled((fix.accuracy_m for fix in fixes), 1000, NO_ACCURACY, "i4"),
        "speed_cmps": scaled((fix.speed_cmps for fix in fixes), 1, UNKNOWN_U16, "u2"),
        "heading_cdeg": heading,
        "altitude_m": scaled((fix.altitude_m for fix in fixes), 1, UNKNOWN_I16, "i2"),
        "status": np.array([fix.status for fix in fixes], np.uint16),
        "battery_pct": scaled((fix.battery_pct for fix in fixes), 1, UNKNOWN_U8, "u1"),
        "satellites": scaled((fix.satellites for fix in fixes), 1, UNKNOWN_U8, "u1"),
    }
    return Part(columns, np.array(message, np.int32), np.array(record, np.int32))
