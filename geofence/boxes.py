"""Boxes of zones: enough to see quickly that a position is far from one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geofence.units import E7

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.zoneset import ZoneSet

__all__ = ["boxes_of"]


def boxes_of(zones: ZoneSet) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """West, south, east, north (int64 (z, 4), 1e-7 degree); cosines; how far each zone reaches beyond, mm."""
    table = zones.whole.table
    n = len(zones)
    boxes = np.zeros((n, 4), np.int64)
    if n:
        first = table.line_start[table.zone_line[:-1]]
        boxes[:, :2] = np.minimum.reduceat(table.vertices, first)
        boxes[:, 2:] = np.maximum.reduceat(table.vertices, first)
    poleward = np.minimum(np.abs(boxes[:, (1, 3)]).max(axis=1, initial=0) / E7 + 1.0, 90.0)
    # a hair less than the cosine, so that the last bit of a platform's cosine decides nothing
    cosines = np.maximum(np.cos(np.radians(poleward)) - 1e-6, 0.0)
    # a straight edge in longitude and latitude stays in its box; the reach is along the ground
    return boxes, cosines.round(6), table.reach_mm.astype(np.float64)
