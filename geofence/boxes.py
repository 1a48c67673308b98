"""Boxes of zones: enough to see quickly that a position is far from one; and circles, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.units import E7

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.zoneset import ZoneSet

__all__ = ["BOX", "boxes_of"]

# One zone in 28 bytes, so that looking at it costs one cache line.
BOX: Final = np.dtype(
    [
        ("west", "i4"),  # of its vertices, 1e-7 degree; of a circle: of its centre
        ("south", "i4"),
        ("east", "i4"),
        ("north", "i4"),
        ("cosine_ppm", "i4"),  # at most the cosine of any latitude within a degree of the box, millionths
        ("reach_mm", "i4"),  # how far beyond its vertices it reaches along the ground
        ("is_circle", "i4"),
    ]
)


def boxes_of(zones: ZoneSet) -> NDArray[Any]:
    """BOX (z,) of all zones."""
    table = zones.whole.table
    boxes = np.zeros(len(zones), BOX)
    if not len(zones):
        return boxes
    # a straight edge in longitude and latitude stays in the box of its ends
    first = table.line_start[table.zone_line[:-1]]
    low = np.minimum.reduceat(table.vertices, first)
    high = np.maximum.reduceat(table.vertices, first)
    boxes["west"], boxes["south"] = low[:, 0], low[:, 1]
    boxes["east"], boxes["north"] = high[:, 0], high[:, 1]
    farthest = np.maximum(np.abs(low[:, 1].astype(np.int64)), np.abs(high[:, 1].astype(np.int64)))
    poleward = np.minimum(farthest / E7 + 1.0, 90.0)
    # a hair less than the cosine, so that the last bit of a platform's cosine decides nothing
    cosines = np.maximum(np.cos(np.radians(poleward)) - 1e-6, 0.0)
    boxes["cosine_ppm"] = np.rint(cosines * 1e6)
    boxes["reach_mm"] = table.reach_mm
    boxes["is_circle"] = table.is_circle
    return boxes
