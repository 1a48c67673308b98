"""Distances of (ping, zone) pairs, and the zones that tracks touch."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import BOUNDARY, INSIDE, OUTSIDE, locate, segments_touch
from geofence._kernels.geodesy import PIECE_E7, arc_m, chord_to_piece2, ecef, to_mm
from geofence._kernels.sides import side_from_index
from geofence._kernels.tree import STACK, nearest_chord

__all__ = ["pair_distances", "tracks_touch"]

MAX_LON = 2_140_000_000
MAX_LAT = 900_000_000
FULL_TURN = 3_600_000_000
HALF_TURN = 1_800_000_000
SATURATED_MM = 2_000_000_000
NORTH = 1
SOUTH = 2


@njit(cache=True, nogil=True)
def _side(edges, zone_edge, poles, sides, zone, x, y):
    """OUTSIDE, BOUNDARY or INSIDE of a polygon, buffers aside; at a pole all longitudes are one place."""
    if y == MAX_LAT and poles[zone] & NORTH:
        return BOUNDARY
    if y == -MAX_LAT and poles[zone] & SOUTH:
        return BOUNDARY
    found = side_from_index(zone, x, y, *sides)
    if found >= 0:
        return found
    found = locate(edges, zone_edge[zone], zone_edge[zone + 1], x, y)
    if found == OUTSIDE:
        other = x - FULL_TURN if x > 0 else x + FULL_TURN
        if abs(other) <= MAX_LON:
            found = locate(edges, zone_edge[zone], zone_edge[zone + 1], other, y)
    return found


@njit(cache=True, nogil=True)
def _signed(columns, poles, sides, zone, x, y, scratch):
    """Signed distance in metres, and in whole millimetres so that 0 or less means: the zone covers the
    position.
    """
    edges, zone_edge, is_area, reach_mm, pieces, zone_piece, spheres, levels, zone_level = columns
    fx = float(x)
    fy = float(y)
    px, py, pz = ecef(fx, fy)
    chord = nearest_chord(
        pieces,
        zone_piece[zone],
        zone_piece[zone + 1],
        spheres,
        levels,
        zone_level[zone],
        zone_level[zone + 1],
        fx,
        fy,
        px,
        py,
        pz,
        math.inf,
        scratch,
    )
    metres = arc_m(chord)
    mm = to_mm(metres)
    if is_area[zone]:
        found = _side(edges, zone_edge, poles, sides, zone, x, y)
        if found == OUTSIDE:
            mm = max(mm, 1)
        else:
            mm = -mm
            metres = -metres  # on the border it is 0 already, but for a seam of the map, which is none
    mm -= reach_mm[zone]
    return metres - reach_mm[zone] / 1000.0, max(-SATURATED_MM, min(SATURATED_MM, mm))


@njit(cache=True, nogil=True)
def pair_distances(lon_e7, lat_e7, zone, columns, poles, sides, metres, mm):
    """Signed distances of pairs.

    lon_e7, lat_e7 : int32 (n,)
    zone           : int32 (n,)
    columns        : ZoneColumns.for_distance
    poles          : uint8 (z,)    which poles each polygon touches
    sides          : the words, lists and grid of a cell index without buffers
    metres         : float64 (n,)  written; NaN where there is no fix
    mm             : int32 (n,)    written; saturates at +-2,000,000,000; that, positive, where there is no
                                   fix
    """
    scratch = np.empty((STACK, 3), np.float64)
    for i in range(len(lon_e7)):
        x = np.int64(lon_e7[i])
        y = np.int64(lat_e7[i])
        if abs(x) > MAX_LON or abs(y) > MAX_LAT:
            metres[i] = math.nan
            mm[i] = SATURATED_MM
        else:
            metres[i], mm[i] = _signed(columns, poles, sides, zone[i], x, y, scratch)


@njit(cache=True, nogil=True)
def tracks_touch(ax, ay, bx, by, track, zone, columns, poles, sides, touch):
    """Whether straight tracks touch zones, pair by pair.

    ax, ay, bx, by : int32 (t,)  the tracks' ends, 1e-7 degree
    track, zone    : int64 (n,)  the pairs
    touch          : bool (n,)   written; false where an end is no fix

    A track goes the short way round. It touches a zone if an end is covered, if it crosses an edge, or if an
    end of an edge
    lies within the zone's reach of it: two segments that don't cross are nearest at an end of one of them.
    """
    edges = columns[0]
    zone_edge = columns[1]
    reach_mm = columns[3]
    scratch = np.empty((STACK, 3), np.float64)
    for i in range(len(track)):
        t = track[i]
        z = zone[i]
        x0 = np.int64(ax[t])
        y0 = np.int64(ay[t])
        x1 = np.int64(bx[t])
        y1 = np.int64(by[t])
        touch[i] = False
        if max(abs(x0), abs(x1)) > MAX_LON or max(abs(y0), abs(y1)) > MAX_LAT:
            continue
        _, start_mm = _signed(columns, poles, sides, z, x0, y0, scratch)
        if start_mm <= 0:
            touch[i] = True
            continue
        _, stop_mm = _signed(columns, poles, sides, z, x1, y1, scratch)
        if stop_mm <= 0:
            touch[i] = True
            continue
        if x1 - x0 > HALF_TURN:
            x1 -= FULL_TURN
        elif x0 - x1 > HALF_TURN:
            x1 += FULL_TURN
        first = zone_edge[z]
        last = zone_edge[z + 1]
        touch[i] = _crosses(edges, first, last, x0, y0, x1, y1) or (
            reach_mm[z] > 0 and _passes(edges, first, last, reach_mm[z], x0, y0, x1, y1)
        )


@njit(cache=True, nogil=True)
def _crosses(edges, first, last, x0, y0, x1, y1):
    """Whether a track shares a place with an edge, under any of its longitudes. All int64."""
    for turn in range(-1, 2):
        u0 = x0 + turn * FULL_TURN
        u1 = x1 + turn * FULL_TURN
        if max(u0, u1) < -MAX_LON or min(u0, u1) > MAX_LON:
            continue
        for e in range(first, last):
            ex = np.int64(edges[e, 0])
            fx = np.int64(edges[e, 2])
            # Beside each other in longitude they can't touch; else all lies within 2 * 428 degrees of
            # longitude, so
            # no product exceeds 1.8e9 * 4.28e9 (see exact).
            if max(u0, u1) < min(ex, fx) or min(u0, u1) > max(ex, fx):
                continue
            if segments_touch(u0, y0, u1, y1, ex, np.int64(edges[e, 1]), fx, np.int64(edges[e, 3])):
                return True
    return False


@njit(cache=True, nogil=True)
def _passes(edges, first, last, reach_mm, x0, y0, x1, y1):
    """Whether an end of an edge lies within reach of a track."""
    steps = 1 + max(abs(x1 - x0), abs(y1 - y0)) // PIECE_E7
    dx = (x1 - x0) / steps
    dy = (y1 - y0) / steps
    for e in range(first, last):
        for k in range(2):
            x = float(edges[e, 2 * k])
            y = float(edges[e, 2 * k + 1])
            px, py, pz = ecef(x, y)
            for s in range(steps):
                d2 = chord_to_piece2(x0 + s * dx, y0 + s * dy, dx, dy, x, y, px, py, pz)
                if to_mm(arc_m(math.sqrt(d2))) <= reach_mm:
                    return True
    return False


assert INSIDE > BOUNDARY > OUTSIDE
