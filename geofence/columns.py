"""What the kernels read of a set's zones: flat, derived from the table once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from geofence._kernels.tree import build_spheres
from geofence.pieces import border_pieces, reach_boxes, touched_poles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.table import ZoneTable

__all__ = ["ZoneColumns"]


@dataclass(frozen=True, eq=False, slots=True)
class ZoneColumns:
    """Columns of z zones, m edges and p pieces of borders.

    edges      : int32 (m, 4)    ax, ay, bx, by, 1e-7 degree
    zone_edge  : int64 (z+1,)    zone i has edges zone_edge[i]:zone_edge[i+1]
    is_area    : bool (z,)       it has an inside of its own
    is_circle  : bool (z,)       one point and a radius
    reach_mm   : int32 (z,)      how far beyond its geometry it reaches
    poles      : uint8 (z,)      which poles it touches, pieces.NORTH | pieces.SOUTH
    centres    : int32 (z, 2)    the first vertex: a circle's centre
    boxes      : int64 (z, 4)    west, south, east, north of all it covers; circles and the like within +-180
                                 degrees
    pieces     : float64 (p, 4)  ax, ay, dx, dy, 1e-7 degree
    zone_piece : int64 (z+1,)
    spheres, levels, zone_level : see geofence._kernels.tree
    """

    edges: NDArray[np.int32]
    zone_edge: NDArray[np.int64]
    is_area: NDArray[np.bool_]
    is_circle: NDArray[np.bool_]
    reach_mm: NDArray[np.int32]
    poles: NDArray[np.uint8]
    centres: NDArray[np.int32]
    boxes: NDArray[np.int64]
    pieces: NDArray[np.float64]
    zone_piece: NDArray[np.int64]
    spheres: NDArray[np.float64]
    levels: NDArray[np.int64]
    zone_level: NDArray[np.int64]

    @classmethod
    def of(cls, table: ZoneTable) -> ZoneColumns:
        """Derive the columns of a table."""
        edges, zone_edge = table.edges
        pieces, zone_piece = border_pieces(table)
        spheres, levels, zone_level = build_spheres(pieces, zone_piece)
        return cls(
            edges=edges,
            zone_edge=zone_edge,
            is_area=table.is_area,
            is_circle=table.is_circle,
            reach_mm=table.reach_mm,
            poles=touched_poles(table),
            centres=np.ascontiguousarray(edges[zone_edge[:-1], :2]),
            boxes=reach_boxes(table, pieces, zone_piece),
            pieces=pieces,
            zone_piece=zone_piece,
            spheres=spheres,
            levels=levels,
            zone_level=zone_level,
        )

    def without_reach(self) -> ZoneColumns:
        """The polygons as they were drawn: no buffers, and circles and corridors cover nothing."""
        return replace(self, reach_mm=np.zeros_like(self.reach_mm))

    @property
    def for_distance(self) -> tuple[NDArray[np.generic], ...]:
        """What the kernels that measure take, in their order."""
        return (
            self.edges,
            self.zone_edge,
            self.is_area,
            self.reach_mm,
            self.pieces,
            self.zone_piece,
            self.spheres,
            self.levels,
            self.zone_level,
        )
