"""Pieces of borders, for distances: edges without seams, cut where they are long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geofence._kernels.geodesy import PIECE_E7
from geofence._kernels.raster import grow_boxes
from geofence.units import HALF_TURN_E7, QUARTER_TURN_E7

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.table import ZoneTable

__all__ = ["NORTH", "SOUTH", "border_pieces", "reach_boxes", "touched_poles"]

NORTH = 1
SOUTH = 2


def touched_poles(table: ZoneTable) -> NDArray[np.uint8]:
    """uint8 (n,): which poles each polygon has a vertex at, NORTH | SOUTH."""
    edges, zone_edge = table.edges
    zone = np.repeat(np.arange(len(table)), np.diff(zone_edge))
    poles = np.zeros(len(table), np.uint8)
    for bit, latitude in ((NORTH, QUARTER_TURN_E7), (SOUTH, -QUARTER_TURN_E7)):
        touching = np.unique(zone[edges[:, 1] == latitude])
        poles[touching] |= bit
    return poles


def border_pieces(table: ZoneTable) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """float64 (k, 4) ax, ay, dx, dy in 1e-7 degree, and int64 (n+1,) which belong to each zone.

    An edge at a pole is a single place; an edge along the antimeridian that a zone has on both sides of it
    is a
    seam of the map, not a border of the zone. Neither has a distance.
    """
    edges, zone_edge = table.edges
    zone = np.repeat(np.arange(len(table), dtype=np.int64), np.diff(zone_edge))
    area = table.is_area[zone]
    at_pole = area & (edges[:, 1] == edges[:, 3]) & (np.abs(edges[:, 1].astype(np.int64)) == QUARTER_TURN_E7)
    lines = edges.astype(np.float64)
    keep = ~at_pole
    on_seam = (
        area & (edges[:, 0] == edges[:, 2]) & (np.abs(edges[:, 0].astype(np.int64)) == HALF_TURN_E7) & keep
    )
    if on_seam.any():
        keep &= ~on_seam
        rest, rest_zone = _outside_seams(edges[on_seam].astype(np.int64), zone[on_seam])
        lines = np.concatenate([lines[keep], rest])
        zone = np.concatenate([zone[keep], rest_zone])
        order = np.argsort(zone, kind="stable")
        lines, zone = lines[order], zone[order]
    else:
        lines, zone = lines[keep], zone[keep]
    start = lines[:, :2]
    step = lines[:, 2:] - start
    cuts = 1 + (np.abs(step).max(axis=1, initial=0.0) // PIECE_E7).astype(np.int64)
    which = np.repeat(np.arange(len(lines)), cuts)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    step = step[which] / cuts[which, None]
    pieces = np.concatenate([start[which] + nth[:, None] * step, step], axis=1)
    counts = np.bincount(zone[which], minlength=len(table))
    return np.ascontiguousarray(pieces), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _outside_seams(
    edges: NDArray[np.int64], zone: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What is left of edges on the antimeridian where a zone lies on one side of it only."""
    rest: list[tuple[int, int, int, int]] = []
    owner: list[int] = []
    for z in np.unique(zone):
        mine = edges[zone == z]
        cuts = np.unique(mine[:, [1, 3]])
        low, high = cuts[:-1], cuts[1:]
        covered = {
            x: np.array(
                [
                    ((mine[:, 0] == x) & (mine[:, [1, 3]].min(1) <= a) & (mine[:, [1, 3]].max(1) >= b)).sum()
                    for a, b in zip(low, high, strict=True)
                ]
            )
            % 2
            == 1
            for x in (-HALF_TURN_E7, HALF_TURN_E7)
        }
        alone = covered[-HALF_TURN_E7] ^ covered[HALF_TURN_E7]
        for i in np.flatnonzero(alone):
            x = HALF_TURN_E7 if covered[HALF_TURN_E7][i] else -HALF_TURN_E7
            rest.append((x, int(low[i]), x, int(high[i])))
            owner.append(int(z))
    return np.array(rest, np.float64).reshape(-1, 4), np.array(owner, np.int64)


def reach_boxes(
    table: ZoneTable, pieces: NDArray[np.float64], zone_piece: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 (n, 4): west, south, east, north of all that each zone covers, 1e-7 degree.

    A polygon's own box is in the longitudes it was drawn in; what lies within reach of a geometry within
    +-180 degrees.
    """
    edges, zone_edge = table.edges
    wide = edges.astype(np.int64)
    first = zone_edge[:-1]
    boxes = np.empty((len(table), 4), np.int64)
    if len(table):
        boxes[:, 0] = np.minimum.reduceat(np.minimum(wide[:, 0], wide[:, 2]), first)
        boxes[:, 1] = np.minimum.reduceat(np.minimum(wide[:, 1], wide[:, 3]), first)
        boxes[:, 2] = np.maximum.reduceat(np.maximum(wide[:, 0], wide[:, 2]), first)
        boxes[:, 3] = np.maximum.reduceat(np.maximum(wide[:, 1], wide[:, 3]), first)
    grow_boxes(boxes, table.is_area, table.reach_mm, pieces, zone_piece)
    return boxes
