"""Call every zone kernel once, with the types used at run time, so that its machine code is cached."""

from __future__ import annotations

from typing import Any

import numpy as np

from geofence.zoneset import ZoneSet

__all__ = ["warm"]


def warm() -> None:
    """Build a small set of every kind of zone and ask it everything."""
    square = [[0.0, 0.0], [0.02, 0.0], [0.02, 0.02], [0.0, 0.02], [0.0, 0.0]]
    zones = ZoneSet.from_geojson(
        {
            "type": "FeatureCollection",
            "features": [
                _feature("area", {"type": "Polygon", "coordinates": [square]}),
                _feature("wide", {"type": "Polygon", "coordinates": [square]}, buffer_m=40),
                _feature("circle", {"type": "Point", "coordinates": [0.01, 0.01]}, radius_m=300),
                _feature("corridor", {"type": "LineString", "coordinates": square}, radius_m=20),
                _feature(
                    "world",
                    {"type": "Polygon", "coordinates": [[[170, -40], [190, -40], [180, 90], [170, -40]]]},
                ),
            ],
        }
    )
    x = np.array([0, 100_000, 250_000], np.int32)
    y = np.array([100_000, 0, 100_000], np.int32)
    zones.covering_e7(x, y)
    zones.near(x, y, 100_000)
    zones.distance_mm(x, y, np.arange(3, dtype=np.int32))
    zones.crossing(x, y, y, x)


def _feature(zone_id: str, geometry: dict[str, Any], **properties: float) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"id": zone_id, **properties}, "geometry": geometry}
